"""Widths with which the configs' detectors are small enough for the tests: 32 x 32 BEV cells of 1.6 m."""

NARROW = dict(
    grid=dict(voxel_size=[0.8, 0.8, 8.0]),
    pts_voxel_encoder=dict(feat_channels=[8]), pts_middle_encoder=dict(in_channels=8),
    pts_backbone=dict(in_channels=8, out_channels=[8, 8, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[8, 8, 16], out_channels=[8, 8, 8]))
"""The LiDAR encoders."""
SMALL = dict(
    **NARROW,
    pts_bbox_head=dict(in_channels=24, share_conv_channel=16, separate_head=dict(head_conv=8),
                       bbox_coder=dict(score_threshold=0.0, max_num=40)),
    test_cfg=dict(pts=dict(pre_max_size=20, post_max_size=10)))
"""With CenterHead."""
MEMORY = dict(temporal=dict(network=dict(in_channels=24, key_dim=8, value_dim=8, hidden_dim=8, feature_dim=16)))
CAMERAS = dict(
    img_backbone=dict(base_channels=8), img_neck=dict(in_channels=[16, 32], out_channels=16),
    fusion_layer=dict(bev_channels=24, img_channels=16, tokens=dict(grid=2, dim=16), sample=dict(num_heads=2)))
