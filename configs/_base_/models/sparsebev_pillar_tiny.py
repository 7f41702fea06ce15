# SparseBEV with LiDAR for a CPU: the tiny pillar encoder and the tiny cameras.
_base_ = './pillar_centerhead_tiny.py'
num_frames = 2
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, num_stages=3, base_channels=16, strides=(1, 2, 2), dilations=(1, 1, 1),
        out_indices=(1, 2), norm_cfg=dict(type='BN', requires_grad=True), init_cfg=None),
    img_neck=dict(type='mmdet.FPN', in_channels=[32, 64], out_channels=64, num_outs=2),
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
