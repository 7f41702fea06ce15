# Row of tools/compare_fusions.py: dense BEV queries that look around themselves and read the images around their pillars.
_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='BEVFormerLiteFusion', bev_channels=96, img_channels=64, strides=(8,),
    layers=dict(num_layers=2, dim=64, num_heads=4, ffn_channels=128), cross_attention=dict(num_points=2, radius_px=32.0)))
