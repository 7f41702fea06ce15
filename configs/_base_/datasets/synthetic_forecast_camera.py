# The synthetic forecast world through its front camera: 400x225 images, 352 wide.
_base_ = './nus_forecast_camera.py'
data_root = 'data/synthetic_forecast/'
forecast_pipeline = [
    dict(type='LoadMultiViewImages', cam_names=_base_.cam_names),
    dict(type='ResizeImages', width=352),
    dict(type='AlignToClipEnd'),
    dict(type='PackClipFrame', keys=[]),
]
train_dataloader = dict(num_workers=2, dataset=dict(data_root=data_root, pipeline=forecast_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=forecast_pipeline))
test_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=forecast_pipeline))
