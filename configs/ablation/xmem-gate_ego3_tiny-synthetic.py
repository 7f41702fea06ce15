# Ego option 3 alone: a motion gate discounts memory, no alignment.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(align='none', motion_gate=dict(cues=('difference', 'speed'))))
