# Anchor3DHead; readout: bev + alpha * proj(decoded).
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(readout=dict(type='ResidualReadout')))
