# Active are cells spread evenly over what the cameras see.
_base_ = '../fusion/sparsebev-notes_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(select=dict(kind='geometric')))
