# FastBEV: every voxel reads the pixel that it projects to, by a table made once for a rig.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='FastBEVFusion', bev_channels=96, img_channels=64, strides=(8,), channels=32))
