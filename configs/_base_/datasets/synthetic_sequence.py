# The tiny synthetic world, near range: clips for training, streaming for testing. tools/create_synthetic_nuscenes.py
# makes it. Five sweeps instead of ten: its vehicles are near, and a CPU loads them in half the time.
_base_ = './nus_sequence.py'
point_cloud_range = [-25.6, -25.6, -5.0, 25.6, 25.6, 3.0]
data_root = 'data/synthetic_nuscenes/'
sweeps = dict(type='LoadLidarSweeps', sweeps_num=4, use_dim=[0, 1, 2, 3, 4], pad_empty_sweeps=True, remove_close=True)
train_pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    sweeps,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='AlignToClipEnd'),  # does something only where the data set has align='loader'
    dict(type='ClipBEVAugmentation', rot_range=[-0.3925, 0.3925], scale_ratio_range=[0.95, 1.05]),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes={{_base_.class_names}}),
    dict(type='PointShuffle'),
    dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(**sweeps, test_mode=True),
    dict(type='AlignToClipEnd'),
    dict(type='PackClipFrame', keys=['points']),
]
train_dataloader = dict(
    batch_size=2, num_workers=2, dataset=dict(data_root=data_root, pipeline=train_pipeline, seq_len=2))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(data_root=data_root, ann_file=data_root + 'nuscenes_infos_val.pkl')
test_evaluator = val_evaluator
