# What every row starts from: the plain detector, from scratch, taught what holds points now.
_base_ = './copy_plain.py'
max_epochs = 14
model = dict(train_cfg=dict(loss_frames='all', frozen=[]))
train_dataloader = dict(dataset=dict(keep_seen_s=0.0))
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.15, div_factor=5, by_epoch=True,
                        convert_to_iter_based=True, total_steps=max_epochs)]
