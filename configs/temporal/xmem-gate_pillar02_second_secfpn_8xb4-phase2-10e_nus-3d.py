# Phase 2: everything learns together, the detector ten times slower; memory is written with what it predicts.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py'
lr = 5e-4
max_epochs = 10
load_from = 'work_dirs/xmem-gate_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d/epoch_6.pth'
model = dict(
    temporal=dict(masks=dict(teacher_forcing=0.0)),
    train_cfg=dict(loss_frames='all', grad_frames=2, frozen=[]))
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(custom_keys=dict(pts_=dict(lr_mult=0.1))))
param_scheduler = [  # relative to each part's own rate, which OneCycleLR would set alike
    dict(type='LinearLR', start_factor=0.1, begin=0, end=3, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=3, end=max_epochs, T_max=max_epochs - 3, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
custom_hooks = _base_.custom_hooks[:-2]
