# The demo's detector without memory: the single-frame baseline beside it.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=None)
