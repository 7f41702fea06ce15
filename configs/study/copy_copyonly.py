_base_ = './copy.py'
model = dict(temporal=dict(mix_dim=None))
