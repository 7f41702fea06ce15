# Phase 3: everything learns together, what phase 1 taught ten times slower than the heads of phase 2.
_base_ = './bevformer-lite-multitask_r50_pillar02_second_secfpn_8xb4-phase2-6e_nus-3d.py'
lr = 5e-4
max_epochs = 10
load_from = 'work_dirs/bevformer-lite-multitask_r50_pillar02_second_secfpn_8xb4-phase2-6e_nus-3d/epoch_6.pth'
model = dict(train_cfg=dict(frozen=[]))
slower = dict(lr_mult=0.1)
optim_wrapper = dict(
    optimizer=dict(lr=lr), paramwise_cfg=dict(custom_keys=dict(pts_=slower, img_=slower, fusion_layer=slower)))
param_scheduler = [  # relative to each part's own rate, which OneCycleLR would set alike
    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=1, end=max_epochs, T_max=max_epochs - 1, by_epoch=True,
         convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
