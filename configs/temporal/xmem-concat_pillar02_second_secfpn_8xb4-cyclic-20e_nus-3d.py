# A convolution over [bev, decoded].
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(temporal=dict(readout=dict(type='ConcatReadout')))
