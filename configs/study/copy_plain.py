# The plain detector, from scratch: the first row, and what every row starts from.
_base_ = './copy.py'
max_epochs = 7
model = dict(temporal=None, train_cfg=dict(loss_frames='all', frozen=[], grad_frames=None))
train_dataloader = dict(dataset=dict(seq_len=1))
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.15, div_factor=5, by_epoch=True,
                        convert_to_iter_based=True, total_steps=max_epochs)]
