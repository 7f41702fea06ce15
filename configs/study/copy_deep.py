_base_ = './copy.py'
model = dict(temporal=dict(value='deep', copy=False))
