# A narrow PointPillars for a CPU and the near range.
_base_ = './pillar_centerhead.py'
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.1)  # with 0.01 the statistics do not arrive within a few hundred steps
model = dict(
    grid=dict(point_cloud_range=[-25.6, -25.6, -5.0, 25.6, 25.6, 3.0], voxel_size=[0.4, 0.4, 8.0], out_size_factor=2),
    data_preprocessor=dict(voxel_layer=dict(max_num_points=10)),
    pts_voxel_encoder=dict(feat_channels=[32], norm_cfg=dict(type='BN1d', eps=1e-3, momentum=0.1)),
    pts_middle_encoder=dict(in_channels=32),
    pts_backbone=dict(in_channels=32, out_channels=[32, 64, 128], layer_nums=[2, 2, 2], norm_cfg=norm_cfg),
    pts_neck=dict(
        in_channels=[32, 64, 128], out_channels=[32, 32, 32], upsample_strides=[1, 2, 4], norm_cfg=norm_cfg),
    pts_bbox_head=dict(
        in_channels=96,
        tasks=[  # two instead of six: fewer branches, so more steps a minute, and each sees more boxes
            dict(num_class=5, class_names=['car', 'truck', 'construction_vehicle', 'bus', 'trailer']),
            dict(num_class=5, class_names=['barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone']),
        ],
        separate_head=dict(head_conv=32), loss_bbox=dict(loss_weight=1.0)))
