# StreamPETR's head and memory for the detector of configs/forecasting/queries-*: LiDAR alone, clips aligned by the loader.
query_parts = dict(
    pts_bbox_head=dict(
        _delete_=True, type='StreamPETR', num_classes=10, queries=dict(num_learned=96, num_propagated=32),
        bev_tokens=dict(in_channels=96, stride=2), transformer=dict(dim=64, num_layers=2, num_heads=4, ffn_dim=128),
        denoising=dict(groups=3)),
    temporal=dict(_delete_=True, type='QueryMemory', embed_dims=64, num_slots=128, num_kept=32, align='loader'),
    train_cfg=dict(_delete_=True, loss_frames='all'),
    test_cfg=dict(_delete_=True, mode='window', seq_len=5, stride=1))
