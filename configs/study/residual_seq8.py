_base_ = './residual.py'
# gradient through the last four frames, as in the other rows
model = dict(train_cfg=dict(grad_frames=4))
train_dataloader = dict(dataset=dict(seq_len=8))
