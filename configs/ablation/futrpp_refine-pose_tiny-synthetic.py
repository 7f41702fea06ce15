# A rigid correction per camera.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(calib_refine=dict(kind='pose')))
