# Active cells attend to camera tokens.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(sample=dict(kind='tokens')))
