# BEVFormer-Lite: every cell of the LiDAR BEV looks around itself and reads the images around its pillar, three times.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='BEVFormerLiteFusion', bev_channels=384, img_channels=256, strides=(16,),
    layers=dict(num_layers=3, dim=128), cross_attention=dict(num_points=2)))
