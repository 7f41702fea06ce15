# CMT for a CPU: the tiny LiDAR encoders and cameras, their tokens in one decoder of two layers.
_base_ = './pillar_cameras_tiny.py'
model = dict(
    pts_bbox_head=dict(
        _delete_=True, type='CMTHead', num_classes=10,
        inputs=dict(img_channels=64, bev_channels=96, level=1, bev_stride=2, num_depths=16),
        transformer=dict(dim=64, num_queries=100, num_layers=2, num_heads=4, ffn_dim=128, branch_dim=32),
        masked_modal=dict(cameras=0.25, lidar=0.25), denoising=dict(groups=3)),
    train_cfg=dict(_delete_=True, loss_frames='all'),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
