# A fifth of the cells is active.
_base_ = '../fusion/sparsebev-notes_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(select=dict(active_ratio=0.2)))
