_base_ = './fusion_futrpp.py'
model = dict(fusion_layer=dict(_delete_=True, type='FuTr', bev_channels=96, img_channels=64, strides=(8,), dim=64))
