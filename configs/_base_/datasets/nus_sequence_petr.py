# nuScenes keyframes of six cameras at 256x704 without LiDAR, with the published augmentation of StreamPETR (R50) and SparseBEV:
# images are resized to 0.38..0.55 of 900x1600, cut at the lower edge and mirrored; the scene is turned and scaled, not mirrored.
# Here every image has its own draw, there all of a sample share one.
_base_ = './nus_sequence.py'
cam_names = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
load_images = dict(type='LoadMultiViewImages', cam_names=cam_names)
train_pipeline = [
    load_images,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ResizeImages', scale_range=(0.38, 0.55)),
    dict(type='CropImages', size=(256, 704), vertical=(1.0, 1.0), horizontal=(0.0, 1.0)),
    dict(type='FlipImages', prob=0.5),
    dict(type='MaskImageGrid', prob=0.7, rotate_deg=1.0),
    dict(type='ClipBEVAugmentation', rot_range=[-0.3925, 0.3925], scale_ratio_range=[0.95, 1.05],
         flip_ratio_bev_horizontal=0.0, flip_ratio_bev_vertical=0.0),
    dict(type='ObjectRangeFilter', point_cloud_range={{_base_.point_cloud_range}}),
    dict(type='ObjectNameFilter', classes={{_base_.class_names}}),
    dict(type='PackClipFrame', keys=['gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    load_images,
    dict(type='ResizeImages', width=704),
    dict(type='CropImages', size=(256, 704)),
    dict(type='PackClipFrame', keys=[]),
]
cameras_only = dict(
    modality=dict(use_lidar=False, use_camera=True),
    data_prefix=dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', **{name: f'samples/{name}' for name in cam_names}))
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline, seq_len=1, **cameras_only))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **cameras_only))
test_dataloader = val_dataloader
val_evaluator = dict(modality=cameras_only['modality'])  # what a submission says was used
test_evaluator = val_evaluator
