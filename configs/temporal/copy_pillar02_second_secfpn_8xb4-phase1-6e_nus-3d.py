# The copying memory on the encoders of configs/lidar, which are frozen (statistics too); what it stores is fitted to their features
# first, then memory and head learn.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py'
model = dict(
    temporal=dict(_delete_=True, type='CopyMemory', in_channels=384, long_term=True),
    pts_bbox_head=dict(seen_weight=1.0),
    train_cfg=dict(grad_frames=4, frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
train_pipeline = _base_.train_pipeline[:-1] + [dict(type='CountBoxPoints')] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, seq_len=8, keep_seen_s=6.0))
val_evaluator = [
    dict(**_base_.val_evaluator, hidden_boxes='downweight'),
    dict(type='MemoryMetric', data_root=_base_.data_root, ann_file=_base_.val_evaluator.ann_file),
]
test_evaluator = val_evaluator
custom_hooks = _base_.custom_hooks[:-2] + [dict(type='FitValuesHook')]
