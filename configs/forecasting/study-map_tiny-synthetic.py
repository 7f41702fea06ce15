# The same with the map as the rasters' third channel.
_base_ = './study_tiny-synthetic.py'
forecast_pipeline = _base_.forecast_pipeline[:-1] + [
    dict(type='RasterizeMap', point_cloud_range=_base_.raster_range, shape=(96, 96)),
    _base_.forecast_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
val_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
test_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
