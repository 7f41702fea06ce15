# Tiny twin of phase 2: everything learns together, the detector ten times slower.
_base_ = './xmem-gate_pillar04_tiny-phase1_synthetic.py'
load_from = 'work_dirs/xmem-gate_pillar04_tiny-phase1_synthetic/epoch_4.pth'
model = dict(
    temporal=dict(masks=dict(teacher_forcing=0.0)),
    train_cfg=dict(loss_frames='all', grad_frames=1, frozen=[]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(pts_=dict(lr_mult=0.1))))
param_scheduler = [  # relative to each part's own rate, which OneCycleLR would set alike
    dict(type='LinearLR', start_factor=0.1, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=1, end=4, T_max=3, by_epoch=True, convert_to_iter_based=True),
]
custom_hooks = _base_.custom_hooks[:-2]
