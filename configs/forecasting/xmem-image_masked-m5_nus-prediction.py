# Stage 1: XMem is frozen; give its weights with --cfg-options model.features.stream.network.checkpoint=XMem.pth
_base_ = './kinematics_gru-m5_nus-prediction.py'
model = dict(
    features=dict(
        type='MemoryAgentFeatures', source='rasters', point_cloud_range={{_base_.raster_range}}, pooling='masked',
        stream=dict(
            type='AgentStream',
            network=dict(type='ImageMemoryNetwork', in_channels=3, adapter=False, bev_shape={{_base_.raster_shape}}))))
