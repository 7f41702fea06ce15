# The tiny pillar encoder and cameras with FuTr++ on one level at stride 8.
_base_ = './pillar_cameras_tiny.py'
model = dict(
    fusion_layer=dict(
        type='FuTrPlusPlus', bev_channels=96, img_channels=64, strides=(8,),
        tokens=dict(grid=8, dim=64), geometry=dict(kind='ray', scale_m=25.0), film=dict(kind='per_camera_gated'),
        select=dict(kind='learned', active_ratio=0.15), sample=dict(kind='deformable', num_points=4, radius_px=32.0)))
