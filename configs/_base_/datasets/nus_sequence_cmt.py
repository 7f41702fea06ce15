# nuScenes keyframes with 10 sweeps and six cameras at 320x800, as published for CMT: +-54 m, rare classes more often, stronger
# turns and scales, shifts and mirrors. Published training also pastes objects into points and images; that is left out here.
_base_ = './nus_sequence.py'
point_cloud_range = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
cam_names = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
load_images = dict(type='LoadMultiViewImages', cam_names=cam_names)
train_pipeline = _base_.load_points + [
    load_images,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ClipBEVAugmentation', rot_range=[-0.785, 0.785], scale_ratio_range=[0.9, 1.1], translation_std=[0.5, 0.5, 0.5]),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes={{_base_.class_names}}),
    dict(type='PointShuffle'),
    dict(type='ResizeImages', scale_range=(0.47, 0.625)),
    dict(type='CropImages', size=(320, 800), vertical=(1.0, 1.0), horizontal=(0.0, 1.0)),
    dict(type='FlipImages', prob=0.5),
    dict(type='MaskImageGrid', prob=0.7, rotate_deg=1.0),
    dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = _base_.test_pipeline[:2] + [
    load_images,
    dict(type='ResizeImages', width=800),
    dict(type='CropImages', size=(320, 800)),
    dict(type='PackClipFrame', keys=['points']),
]
with_cameras = dict(
    modality=dict(use_lidar=True, use_camera=True),
    data_prefix=dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', **{name: f'samples/{name}' for name in cam_names}))
train_dataloader = dict(
    batch_size=4,
    dataset=dict(_delete_=True, type='SeededCBGSDataset', dataset={
        **_base_.train_dataloader.dataset, 'pipeline': train_pipeline, 'seq_len': 1, 'use_valid_flag': False, **with_cameras}))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **with_cameras))
test_dataloader = val_dataloader
val_evaluator = dict(modality=with_cameras['modality'])  # what a submission says was used
test_evaluator = val_evaluator
