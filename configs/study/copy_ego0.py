_base_ = './copy.py'
model = dict(temporal=dict(align='none'))
