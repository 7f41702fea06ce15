# And a light memory on rasters, which learns with the head: nothing is published for it.
_base_ = './kinematics_gru-m5_tiny-synthetic.py'
model = dict(
    train_features=True,
    features=dict(
        type='MemoryAgentFeatures', source='rasters', point_cloud_range={{_base_.raster_range}}, pooling='masked',
        stream=dict(
            type='AgentStream',
            network=dict(type='BEVMemoryNetwork', in_channels=3, feature_dim=64, key_dim=32, value_dim=64, hidden_dim=64,
                         memory_stride=8))))
