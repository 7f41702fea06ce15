# BEVFormer-Lite: every cell of the LiDAR BEV looks around itself and reads the images around its pillar, twice.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='BEVFormerLiteFusion', bev_channels=96, img_channels=64, strides=(8,),
    layers=dict(num_layers=2, dim=64, num_heads=4, ffn_channels=128), cross_attention=dict(num_points=2, radius_px=32.0)))
