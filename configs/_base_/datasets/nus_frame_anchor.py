# The same frames as mmdet3d's anchor-based configs have them: +-50 m, no GT-paste, no resampling, its own class order.
_base_ = './nus_frame.py'
point_cloud_range = [-50, -50, -5, 50, 50, 3]
class_names = [
    'car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone', 'barrier'
]
train_pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='LoadLidarSweeps', sweeps_num=10),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='GlobalRotScaleTrans', rot_range=[-0.3925, 0.3925], scale_ratio_range=[0.95, 1.05], translation_std=[0, 0, 0]),
    dict(type='RandomFlip3D', flip_ratio_bev_horizontal=0.5),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=class_names),
    dict(type='PointShuffle'),
    dict(type='Pack3DDetInputs', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='LoadLidarSweeps', sweeps_num=10, test_mode=True),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='Pack3DDetInputs', keys=['points']),
]
train_dataloader = dict(dataset=dict(
    _delete_=True, type='SeededNuScenesDataset', data_root={{_base_.data_root}}, ann_file='nuscenes_infos_train.pkl',
    pipeline=train_pipeline, metainfo=dict(classes=class_names), modality=dict(use_lidar=True, use_camera=False),
    data_prefix={{_base_.data_prefix}}, box_type_3d='LiDAR', test_mode=False))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, metainfo=dict(classes=class_names)))
test_dataloader = val_dataloader
