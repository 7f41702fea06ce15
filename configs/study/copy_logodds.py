_base_ = './copy_residual.py'
model = dict(temporal=dict(readout=dict(type='LogOddsReadout')))
