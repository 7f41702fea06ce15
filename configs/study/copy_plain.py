# The plain detector: the first row.
_base_ = './copy.py'
model = dict(temporal=None, train_cfg=dict(grad_frames=None))
train_dataloader = dict(dataset=dict(seq_len=1))
