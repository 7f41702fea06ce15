_base_ = './residual.py'
model = dict(temporal=dict(ego_channels=True))
