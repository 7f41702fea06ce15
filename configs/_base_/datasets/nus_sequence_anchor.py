# The same clips as mmdet3d's anchor-based configs have their frames: +-50 m, ten sweeps, four values a point, its class order,
# which is that of its checkpoints' scores.
_base_ = './nus_sequence.py'
point_cloud_range = [-50, -50, -5, 50, 50, 3]
class_names = [
    'car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone', 'barrier'
]
load_points = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='LoadLidarSweeps', sweeps_num=10, use_dim=[0, 1, 2, 4]),
]
train_pipeline = load_points + [
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='AlignToClipEnd'),  # does something only where the data set has align='loader'
    dict(type='ClipBEVAugmentation', rot_range=[-0.3925, 0.3925], scale_ratio_range=[0.95, 1.05]),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=class_names),
    dict(type='PointShuffle'),
    dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    load_points[0],
    dict(**load_points[1], test_mode=True),
    dict(type='AlignToClipEnd'),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='PackClipFrame', keys=['points']),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, metainfo=dict(classes=class_names)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, metainfo=dict(classes=class_names)))
test_dataloader = val_dataloader
