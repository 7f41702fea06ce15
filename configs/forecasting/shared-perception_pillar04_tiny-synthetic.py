# One network for both, stage 1: a detector with memory learns boxes on the forecast world. Clips lie in their last frame's
# coordinates and hold all that memory sees, in training and in testing.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
point_cloud_range = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
data_root = 'data/synthetic_forecast/'
load_lidar = dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5)
train_pipeline = [
    load_lidar,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='AlignToClipEnd'),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes={{_base_.class_names}}),
    dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [load_lidar, dict(type='AlignToClipEnd'), dict(type='PackClipFrame', keys=['points'])]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline, seq_len=3, align='loader'))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline, seq_len=5, align='loader'))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root, ann_file=data_root + 'nuscenes_infos_val.pkl')
test_evaluator = val_evaluator
model = dict(
    grid=dict(point_cloud_range=point_cloud_range, voxel_size=[0.8, 0.8, 8.0]),
    temporal=dict(align='loader'),
    test_cfg=dict(mode='window', seq_len=5))
