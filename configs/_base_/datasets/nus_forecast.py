# nuScenes' prediction challenge: 2 s of history as a clip of LiDAR rasters, and all agents of the split in its last frame.
# +-51.2 m in cells of 0.4 m; the ground (about z = -1.8 m) is left out.
raster_range = [-51.2, -51.2, -1.5, 51.2, 51.2, 2.5]
raster_shape = (256, 256)
data_root = 'data/nuscenes/'
version = 'v1.0-trainval'
forecast_pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='AlignToClipEnd'),
    dict(type='RasterizePoints', point_cloud_range=raster_range, shape=raster_shape),
    dict(type='PackClipFrame', keys=[]),
]
forecast_dataset = dict(
    type='NuScenesForecastDataset',
    data_root=data_root,
    version=version,
    history_frames=5,
    pipeline=forecast_pipeline,
    modality=dict(use_lidar=True, use_camera=False),
    data_prefix=dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP'),
    box_type_3d='LiDAR')
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='nuscenes_infos_train.pkl', split='train', test_mode=False, **forecast_dataset))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='nuscenes_infos_train.pkl', split='train_val', test_mode=True, **forecast_dataset))
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='nuscenes_infos_val.pkl', split='val', test_mode=True, **forecast_dataset))
