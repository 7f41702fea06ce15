# No cell looks at another one.
_base_ = '../fusion/bevformer-lite_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(self_attention=dict(kind='none')))
