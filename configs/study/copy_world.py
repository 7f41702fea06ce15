_base_ = './copy.py'
model = dict(temporal=dict(long_term=True))
