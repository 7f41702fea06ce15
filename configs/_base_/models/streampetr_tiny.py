# StreamPETR for a CPU: the tiny LiDAR encoders and cameras, their tokens in one decoder of two layers, a memory of four frames.
_base_ = './pillar_cameras_tiny.py'
model = dict(
    pts_bbox_head=dict(
        _delete_=True, type='StreamPETR', num_classes=10, queries=dict(num_learned=96, num_propagated=32),
        image_tokens=dict(in_channels=64, level=1, num_depths=16), bev_tokens=dict(in_channels=96, stride=2),
        transformer=dict(dim=64, num_layers=2, num_heads=4, ffn_dim=128), denoising=dict(groups=3)),
    temporal=dict(type='QueryMemory', embed_dims=64, num_slots=128, num_kept=32),
    train_cfg=dict(_delete_=True, loss_frames='all'),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
