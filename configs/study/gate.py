_base_ = './memory.py'
model = dict(temporal=dict(readout=dict(type='GateReadout')))
