# FastBEV: every voxel reads the pixel that it projects to, by a table made once for a rig. The floor of the camera fusions.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(_delete_=True, type='FastBEVFusion', bev_channels=384, img_channels=256, strides=(16,)))
