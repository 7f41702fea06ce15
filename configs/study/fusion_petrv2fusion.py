# Row of tools/compare_fusions.py: coarse BEV queries that attend to all image tokens.
_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='PETRv2Fusion', bev_channels=96, img_channels=64, strides=(8,),
    layers=dict(num_layers=2, dim=64, num_heads=4, ffn_channels=128, query_grid=(16, 16)), embedding=dict(depths=16)))
