# BEVFormer's own spatial attention: every camera for itself, then the mean.
_base_ = '../fusion/bevformer-lite_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(cross_attention=dict(_delete_=True, kind='deformable')))
