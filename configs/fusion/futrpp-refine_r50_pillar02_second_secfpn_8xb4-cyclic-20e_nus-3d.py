# The rig is corrected: a pose change per camera, taught by the noise that was put in, and a confidence.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(calib_refine=dict(kind='pose', confidence=True)))
