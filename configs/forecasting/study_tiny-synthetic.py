# The memory of tools/study_forecasting.py: near range, large cells, few channels, so that a CPU streams all clips in minutes.
_base_ = './xmem-bev_masked-m5_tiny-synthetic.py'
raster_range = [-38.4, -38.4, -1.5, 38.4, 38.4, 2.5]
forecast_pipeline = [
    dict(type='LoadLidarPoints', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='AlignToClipEnd'),
    dict(type='RasterizePoints', point_cloud_range=raster_range, shape=(96, 96)),
    dict(type='PackClipFrame', keys=[]),
]
train_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
val_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
test_dataloader = dict(dataset=dict(pipeline=forecast_pipeline))
model = dict(features=dict(
    point_cloud_range=raster_range,
    pooling='around',
    stream=dict(top_k=None, network=dict(feature_dim=32, key_dim=16, value_dim=32, hidden_dim=32, memory_stride=4))))
