# PointPillars with six cameras through FuTr, the global block that knows no geometry.
_base_ = './futrpp_pillar_centerhead.py'
model = dict(fusion_layer=dict(_delete_=True, type='FuTr', bev_channels=384, img_channels=256, strides=(16,)))
