_base_ = './copy.py'
model = dict(temporal=dict(num_slots=6, mem_every=2))
train_dataloader = dict(dataset=dict(seq_len=12))
