# A row of tools/study_memory.py --study copying and the base of its others: the study's detector in the world of long occlusions, labels
# of what was seen within 6 s kept, a branch that tells what is seen now; clips longer than any row's slots.
_base_ = './residual.py'
data_root = 'data/occlusion_long/'
infos = data_root + 'nuscenes_infos_val.pkl'
model = dict(
    temporal=dict(_delete_=True, type='CopyMemory', in_channels=96),
    pts_bbox_head=dict(seen_weight=1.0),
    train_cfg=dict(grad_frames=4))
train_pipeline = _base_.train_pipeline[:-1] + [dict(type='CountBoxPoints')] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline, seq_len=8, keep_seen_s=6.0))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
official = dict(type='OrderedNuScenesMetric', data_root=data_root, ann_file=infos, metric='bbox')
test_evaluator = [
    official,
    dict(**official, hidden_boxes='drop', prefix='drop'),
    dict(**official, hidden_boxes='downweight', prefix='downweight'),
    dict(type='MemoryMetric', ann_file=infos, range_m=25.0),
]
val_evaluator = test_evaluator
