# Sampling only: a tenth of the cells reads the images.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(film=dict(kind='off')))
