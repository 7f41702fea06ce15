# FuTr, the global block that knows no geometry.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(_delete_=True, type='FuTr', bev_channels=96, img_channels=64, strides=(8,), dim=64))
