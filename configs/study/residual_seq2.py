_base_ = './memory.py'
train_dataloader = dict(dataset=dict(seq_len=2))
