# Phase 1: the detector of configs/lidar is frozen (statistics too), memory learns. alpha rises from 0 to 1 within the first
# epoch, and the truth that is written to memory gives way to what memory predicts. 879 iterations an epoch on 8 GPUs.
_base_ = [
    '../_base_/models/xmem_gate_pillar_centerhead.py', '../_base_/datasets/nus_sequence.py',
    '../_base_/schedules/phase_one_cycle.py', '../_base_/default_runtime.py'
]
load_from = 'work_dirs/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d/epoch_20.pth'
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    temporal=dict(masks=dict(teacher_forcing=1.0, block_dropout=0.1)),
    train_cfg=dict(
        loss_frames='last',
        frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck', 'pts_bbox_head']))
custom_hooks = _base_.custom_hooks + [
    dict(type='LinearRampHook', attribute='temporal.alpha', start=0.0, end=1.0, begin=0, finish=879),
    dict(type='LinearRampHook', attribute='temporal.masks.teacher_forcing', start=1.0, end=0.0, begin=879, finish=3516),
]
