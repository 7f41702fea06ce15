# Ego options 1 + 2 + 3.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(ego_channels=True, motion_gate=dict(cues=('difference', 'speed'))))
