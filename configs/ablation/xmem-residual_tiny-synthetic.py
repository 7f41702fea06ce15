# Readout: bev + alpha * proj(decoded).
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(readout=dict(type='ResidualReadout')))
