# Anchor3DHead, alpha 0: the plain detector, bit for bit, with memory running beside it.
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(alpha=0.0))
