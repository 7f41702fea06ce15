# SparseBEV with LiDAR for a CPU: the tiny pillar encoder and the tiny cameras.
_base_ = './pillar_cameras_tiny.py'
num_frames = 2
model = dict(
    temporal=dict(type='FrameRing', num_frames=num_frames),
    pts_bbox_head=dict(
        _delete_=True, type='SparseBEVHead', num_classes=10, num_queries=100,
        inputs=dict(num_frames=num_frames, bev_channels=96),
        transformer=dict(
            dim=64, num_layers=2, num_heads=4, ffn_dim=128, num_groups=4, num_points=4, num_levels=2, out_points=32, dropout=0.0,
            with_cp=False),
        denoising=dict(groups=3, centre_noise=0.5, split=2.0)),
    train_cfg=dict(_delete_=True, loss_frames='all'),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
