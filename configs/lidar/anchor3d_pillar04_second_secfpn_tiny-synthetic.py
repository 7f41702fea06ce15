# The anchor twin's detector without memory: the single-frame baseline beside it.
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=None)
