# Futures from what the agents did: a GRU over 2 s of kinematics, five modes around constant velocity.
model = dict(
    type='AgentForecaster',
    head=dict(type='TrajectoryHead', num_modes=5, hidden_dim=128, kind='gru'),
    loss=dict(type='TrajectoryLoss', gate_deg=5.0),
    data_preprocessor=dict(type='ForecastDataPreprocessor', voxel=False))
