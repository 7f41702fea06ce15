_base_ = './copy.py'
model = dict(temporal=dict(value='learned', copy=False))
