# Sparse BEV on a grid: a tenth of the cells is active; these attend to each other, sample the images, and tell all cells.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(
    film=dict(kind='off'), select=dict(active_ratio=0.1), sample=dict(self_attn=True, film_back=True)))
