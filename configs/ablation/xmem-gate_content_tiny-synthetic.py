# Memory is found by content alone, not by place.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(key_position=False))
