# A small plain CenterPoint-pillar that learns one real keyframe by heart (tools/demo_keyframe.py): our conventions against nuScenes'.
_base_ = ['../_base_/models/pillar_centerhead.py', '../_base_/runtime.py']
point_cloud_range = [-25.6, -25.6, -5.0, 25.6, 25.6, 3.0]
class_names = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone'
]
norm = dict(type='BN', eps=1e-3, momentum=0.1)  # 0.01 does not arrive within a hundred steps
model = dict(
    grid=dict(point_cloud_range=point_cloud_range, voxel_size=[0.4, 0.4, 8.0], out_size_factor=1),
    pts_voxel_encoder=dict(feat_channels=[32], norm_cfg=dict(type='BN1d', eps=1e-3, momentum=0.1)),
    pts_middle_encoder=dict(in_channels=32),
    pts_backbone=dict(
        in_channels=32, out_channels=[32, 64, 128], layer_nums=[1, 2, 2], layer_strides=[1, 2, 2], norm_cfg=norm),
    pts_neck=dict(in_channels=[32, 64, 128], out_channels=[32, 32, 32], upsample_strides=[1, 2, 4], norm_cfg=norm),
    pts_bbox_head=dict(
        in_channels=96, share_conv_channel=32, bbox_coder=dict(score_threshold=0.25),
        separate_head=dict(type='SeparateHead', head_conv=32, init_bias=-2.19, final_kernel=3)),
    test_cfg=dict(pts=dict(score_threshold=0.25)))  # only boxes above 0.3 count; rotated NMS of many takes long
pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=class_names),
    dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2))
num_steps = 80
