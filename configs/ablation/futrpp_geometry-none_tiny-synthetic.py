# Tokens that do not know where they look.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(geometry=dict(kind='none')))
