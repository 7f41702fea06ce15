# Readout: a convolution over [bev, decoded].
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(readout=dict(type='ConcatReadout')))
