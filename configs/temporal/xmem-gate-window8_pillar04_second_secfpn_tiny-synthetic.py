# Testing: every frame ends a window of 8 frames (rolling).
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(test_cfg=dict(mode='window', seq_len=8, stride=1))
