# Row of tools/compare_fusions.py: the cheapest geometric fusion.
_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(
    _delete_=True, type='FastBEVFusion', bev_channels=96, img_channels=64, strides=(8,), channels=32))
