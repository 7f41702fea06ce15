# As nus_forecast.py with the front camera's images instead of LiDAR rasters.
# The clip's frames share the last one's LiDAR coordinates, so each frame's calibration takes agents' boxes into its own image.
_base_ = './nus_forecast.py'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32)
cam_names = ['CAM_FRONT']
forecast_pipeline = [
    dict(type='LoadMultiViewImages', cam_names=cam_names),
    dict(type='ResizeImages', width=448),
    dict(type='AlignToClipEnd'),
    dict(type='PackClipFrame', keys=[]),
]
with_camera = dict(
    pipeline=forecast_pipeline,
    modality=dict(use_lidar=False, use_camera=True),
    data_prefix=dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP', CAM_FRONT='samples/CAM_FRONT'))
train_dataloader = dict(dataset=with_camera)
val_dataloader = dict(dataset=with_camera)
test_dataloader = dict(dataset=with_camera)
