# CMT for a CPU: the tiny LiDAR encoders and cameras, their tokens in one decoder of two layers.
_base_ = './pillar_centerhead_tiny.py'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, num_stages=3, base_channels=16, strides=(1, 2, 2), dilations=(1, 1, 1),
        out_indices=(1, 2), norm_cfg=dict(type='BN', requires_grad=True), init_cfg=None),
    img_neck=dict(type='mmdet.FPN', in_channels=[32, 64], out_channels=64, num_outs=2),
    pts_bbox_head=dict(
        _delete_=True, type='CMTHead', num_classes=10,
        inputs=dict(img_channels=64, bev_channels=96, level=1, bev_stride=2, num_depths=16),
        transformer=dict(dim=64, num_queries=100, num_layers=2, num_heads=4, ffn_dim=128, branch_dim=32),
        masked_modal=dict(cameras=0.25, lidar=0.25), denoising=dict(groups=3)),
    train_cfg=dict(_delete_=True, loss_frames='all'),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
