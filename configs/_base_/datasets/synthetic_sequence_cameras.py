# The tiny synthetic world with its six cameras, near range; images at 192x352 of 225x400.
_base_ = './synthetic_sequence.py'
point_cloud_range = [-25.6, -25.6, -5.0, 25.6, 25.6, 3.0]
cam_names = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32)
load_images = dict(type='LoadMultiViewImages', cam_names=cam_names)
train_pipeline = _base_.train_pipeline[:2] + [
    load_images,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='AlignToClipEnd'),  # does something only where the data set has align='loader'
    dict(type='CalibrationNoise', rotation_deg=0.5, translation_m=0.03, prob=0.5),
    dict(type='ResizeImages', width=352, scale_range=(0.95, 1.1)),
    dict(type='CropImages', size=(192, 352), vertical=(1.0, 1.0), horizontal=(0.0, 1.0)),
    dict(type='FlipImages', prob=0.5),
    dict(type='ClipBEVAugmentation', rot_range=[-0.3925, 0.3925], scale_ratio_range=[0.95, 1.05]),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes={{_base_.class_names}}),
    dict(type='PointShuffle'),
    dict(type='PackClipFrame', keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = _base_.test_pipeline[:2] + [
    load_images,
    dict(type='ResizeImages', width=352),
    dict(type='CropImages', size=(192, 352)),
    dict(type='AlignToClipEnd'),
    dict(type='PackClipFrame', keys=['points']),
]
with_cameras = dict(
    modality=dict(use_lidar=True, use_camera=True),
    data_prefix=dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', **{name: f'samples/{name}' for name in cam_names}))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, seq_len=1, **with_cameras))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **with_cameras))
test_dataloader = val_dataloader
val_evaluator = dict(modality=with_cameras['modality'])  # what a submission says was used
test_evaluator = val_evaluator
