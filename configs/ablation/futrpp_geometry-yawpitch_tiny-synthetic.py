# Tokens that know the angles of their ray.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(geometry=dict(kind='yaw_pitch')))
