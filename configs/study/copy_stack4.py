_base_ = './copy.py'
model = dict(temporal=dict(_delete_=True, type='StackFusion', in_channels=96, num_frames=4, hidden_dim=32))
