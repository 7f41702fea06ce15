# PETRv2 for a CPU: two frames of tiny cameras at stride 16, a decoder of two layers.
_base_ = './cameras_tiny.py'
model = dict(
    pts_bbox_head=dict(
        type='PETRv2', num_classes=10, num_queries=100,
        images=dict(
            channels=64, level=1, num_frames=2, depths=dict(kind='lid', num=16, start_m=1.0),
            position_range=[-30.6, -30.6, -10.0, 30.6, 30.6, 10.0]),
        transformer=dict(dim=64, num_layers=2, num_heads=4, ffn_dim=128, dropout=0.0), denoising=dict(groups=4)),
    temporal=dict(type='FrameRing', num_frames=2, levels=[1]),
    train_cfg=dict(loss_frames='last'))
