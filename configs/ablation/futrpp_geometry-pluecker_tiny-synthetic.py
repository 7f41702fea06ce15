# Tokens that know their ray by Pluecker coordinates.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(geometry=dict(kind='pluecker')))
