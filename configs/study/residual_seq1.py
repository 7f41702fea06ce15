_base_ = './residual.py'
train_dataloader = dict(dataset=dict(seq_len=1))
