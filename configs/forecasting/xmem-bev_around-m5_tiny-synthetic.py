# The light memory on rasters that show the map too, pooled around each agent; its many features are narrowed.
_base_ = './xmem-bev_masked-m5_tiny-synthetic.py'
forecast_pipeline = _base_.forecast_pipeline[:-1] + [
    dict(type='RasterizeMap', point_cloud_range=_base_.raster_range, shape=_base_.raster_shape),
    _base_.forecast_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
val_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
test_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
model = dict(
    head=dict(feature_bottleneck=8, feature_dropout=0.3),
    features=dict(pooling='around'))
