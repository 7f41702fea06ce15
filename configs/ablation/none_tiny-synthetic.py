# No memory: the plain detector.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=None)
