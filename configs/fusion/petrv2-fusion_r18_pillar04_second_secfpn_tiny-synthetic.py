# PETRv2 as a fusion: coarse BEV queries from the LiDAR BEV attend to all cells of all images, which know what they may show.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='PETRv2Fusion', bev_channels=96, img_channels=64, strides=(8,),
    layers=dict(num_layers=2, dim=64, num_heads=4, ffn_channels=128, query_grid=(16, 16)), embedding=dict(depths=16)))
