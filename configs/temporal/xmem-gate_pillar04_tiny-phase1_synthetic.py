# Tiny twin of phase 1: `tools/train.py configs/lidar/pillar04_second_secfpn_tiny-synthetic.py` comes before it.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
load_from = 'work_dirs/pillar04_second_secfpn_tiny-synthetic/epoch_13.pth'
max_epochs = 4
model = dict(
    temporal=dict(masks=dict(teacher_forcing=1.0, block_dropout=0.1), loss_occ=dict(warmup_iters=(40, 160))),
    train_cfg=dict(
        loss_frames='last',
        frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck', 'pts_bbox_head']))
custom_hooks = _base_.custom_hooks + [
    dict(type='LinearRampHook', attribute='temporal.alpha', start=0.0, end=0.5, begin=0, finish=40),
    dict(type='LinearRampHook', attribute='temporal.masks.teacher_forcing', start=1.0, end=0.0, begin=40, finish=120),
]
param_scheduler = [
    dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.3, by_epoch=True, convert_to_iter_based=True, total_steps=max_epochs)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
