# The cosine over 36 epochs.
_base_ = './cosine_24e.py'
max_epochs = 36
param_scheduler = [_base_.param_scheduler[0], {**_base_.param_scheduler[1], 'T_max': max_epochs, 'end': max_epochs}]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
