# Anchor3DHead; testing: every frame ends a window of 8 frames (rolling).
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(test_cfg=dict(mode='window', seq_len=8, stride=1))
