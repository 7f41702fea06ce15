# The active cells attend to camera tokens instead of sampling image maps.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(sample=dict(kind='tokens')))
