# Clips of 4 frames with gradient through the last frame only; xmem-gate_seq4 is the same with full gradient.
_base_ = './xmem-gate_seq4_tiny-synthetic.py'
model = dict(train_cfg=dict(grad_frames=1))
