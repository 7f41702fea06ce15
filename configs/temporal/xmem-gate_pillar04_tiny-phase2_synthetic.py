# Tiny twin of phase 2: everything learns together, the detector ten times slower.
_base_ = './xmem-gate_pillar04_tiny-phase1_synthetic.py'
load_from = 'work_dirs/xmem-gate_pillar04_tiny-phase1_synthetic/epoch_4.pth'
model = dict(
    temporal=dict(masks=dict(teacher_forcing=0.0)),
    train_cfg=dict(loss_frames='all', grad_frames=1, frozen=[]))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(pts_=dict(lr_mult=0.1))))
custom_hooks = _base_.custom_hooks[:-2]
