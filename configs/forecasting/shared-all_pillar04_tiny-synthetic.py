# One network for both, stage 2: boxes and futures learn together on one BEV and one memory, the detector ten times slower.
# Futures are scored for the true agents and for those that the detector found within 2 m.
_base_ = './shared-boxes_pillar04_tiny-synthetic.py'
load_from = 'work_dirs/shared-perception_pillar04_tiny-synthetic/epoch_13.pth'
dataset = dict(
    _delete_=True,
    type='NuScenesForecastDataset',
    data_root={{_base_.data_root}},
    metainfo=dict(classes={{_base_.class_names}}),
    modality=dict(use_lidar=True, use_camera=False),
    data_prefix=dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP'),
    box_type_3d='LiDAR')
testing = dict(**dataset, ann_file='nuscenes_infos_val.pkl', split='val', history_frames=5, pipeline={{_base_.test_pipeline}},
               test_mode=True)
train_dataloader = dict(dataset=dict(
    **dataset, ann_file='nuscenes_infos_train.pkl', split='train', history_frames=3, pipeline={{_base_.train_pipeline}},
    use_valid_flag=True, test_mode=False))
val_dataloader = dict(dataset=testing)
test_dataloader = val_dataloader
model = dict(data_preprocessor=dict(type='ForecastDataPreprocessor'))
futures = dict(type='NuScenesForecastMetric', data_root={{_base_.data_root}}, split='val',
               strata={{_base_.data_root}} + 'maps/prediction/maneuvers.json')
val_evaluator = [
    dict(**futures, baselines=['ConstantVelocityHeading']),
    dict(**futures, field='pred_detected_futures', partial=True, prefix='detected')]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='forecast/minADE_5', rule='less'))
slower = dict(lr_mult=0.1)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(pts_=slower, temporal=slower)))
param_scheduler = [  # relative to each part's own rate, which OneCycleLR would set alike
    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=1, end=8, T_max=7, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8, val_interval=8)
