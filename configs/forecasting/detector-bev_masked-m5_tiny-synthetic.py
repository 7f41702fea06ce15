# Kinematics and a light memory of the agents that streams over a trained detector's BEV features; the memory learns with the head.
_base_ = './detector-memory_masked-m5_tiny-synthetic.py'
model = dict(
    train_features=['stream'],
    features=dict(stream=dict(
        type='AgentStream',
        network=dict(type='BEVMemoryNetwork', in_channels=96, memory_stride=2, key_dim=32, value_dim=64, hidden_dim=64,
                     feature_dim=64))))
