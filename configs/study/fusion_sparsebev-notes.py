# Row of tools/compare_fusions.py: active cells that attend to each other, sample, and tell all cells.
_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(
    film=dict(kind='off'), select=dict(active_ratio=0.1), sample=dict(self_attn=True, film_back=True)))
