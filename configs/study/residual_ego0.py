_base_ = './residual.py'
model = dict(temporal=dict(align='none'))
