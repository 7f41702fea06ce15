_base_ = './copy.py'
model = dict(temporal=dict(key_dim=16))
