# Tiny twin without memory.
_base_ = './xmem-gate-multihead_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=None)
