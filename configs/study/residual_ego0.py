_base_ = './memory.py'
model = dict(temporal=dict(align='none'))
