# PETRv2 as a fusion: coarse BEV queries from the LiDAR BEV attend to all cells of all images, which know what they may show.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='PETRv2Fusion', bev_channels=384, img_channels=256, strides=(16,),
    layers=dict(num_layers=3, dim=256, query_grid=(32, 32))))
