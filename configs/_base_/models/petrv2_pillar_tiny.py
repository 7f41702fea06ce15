# PETRv2 for a CPU with LiDAR: cells of the tiny pillar encoder's BEV join the image cells of two frames.
_base_ = './pillar_cameras_tiny.py'
model = dict(
    pts_bbox_head=dict(
        _delete_=True, type='PETRv2', num_classes=10, num_queries=100, bev=dict(in_channels=96, stride=2),
        images=dict(
            channels=64, level=1, num_frames=2, depths=dict(kind='lid', num=16, start_m=1.0),
            position_range=[-30.6, -30.6, -10.0, 30.6, 30.6, 10.0]),
        transformer=dict(dim=64, num_layers=2, num_heads=4, ffn_dim=128, dropout=0.0), denoising=dict(groups=4)),
    temporal=dict(type='FrameRing', num_frames=2, levels=[1]),
    train_cfg=dict(_delete_=True, loss_frames='last'),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
