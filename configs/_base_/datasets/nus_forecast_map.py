# As nus_forecast.py with the map (drivable area and lanes, expansion v1.3) as the rasters' third channel.
_base_ = './nus_forecast.py'
forecast_pipeline = _base_.forecast_pipeline[:-1] + [
    dict(type='RasterizeMap', point_cloud_range=_base_.raster_range, shape=_base_.raster_shape),
    _base_.forecast_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
val_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
test_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
