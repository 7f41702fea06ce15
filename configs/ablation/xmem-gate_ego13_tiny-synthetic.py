# Ego options 1 + 3: a motion gate discounts memory.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(motion_gate=dict(cues=('difference', 'speed'))))
