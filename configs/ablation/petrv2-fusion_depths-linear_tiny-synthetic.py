# Points in equal steps along a ray.
_base_ = '../fusion/petrv2-fusion_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(embedding=dict(depth_kind='linear')))
