_base_ = './copy.py'
model = dict(temporal=dict(_delete_=True, type='ConvGRUFusion', in_channels=96, hidden_dim=32))
