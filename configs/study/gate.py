_base_ = './residual.py'
model = dict(temporal=dict(readout=dict(type='GateReadout')))
