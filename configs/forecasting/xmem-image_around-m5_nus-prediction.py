# XMem, frozen, on rasters that show the map too, pooled around each agent; its many features are narrowed. Weights:
# --cfg-options model.features.stream.network.checkpoint=XMem.pth
_base_ = ['../_base_/datasets/nus_forecast_map.py', '../_base_/models/forecaster_kinematics.py',
          '../_base_/schedules/forecast_12e.py', '../_base_/forecast_runtime.py']
train_dataloader = dict(batch_size=8)
model = dict(
    head=dict(feature_bottleneck=8, feature_dropout=0.3),
    features=dict(
        type='MemoryAgentFeatures', source='rasters', point_cloud_range={{_base_.raster_range}}, pooling='around',
        stream=dict(
            type='AgentStream',
            network=dict(type='ImageMemoryNetwork', in_channels=3, adapter=False, bev_shape={{_base_.raster_shape}}))))
