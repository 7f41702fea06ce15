# Tokens that know their camera's name only.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(geometry=dict(kind='camera_id', cam_names={{_base_.cam_names}})))
