# The active cells attend to camera tokens instead of sampling image maps.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(sample=dict(kind='tokens')))
