# Remembered cells of three frames, and of a map that keeps what leaves them, stand in for what is not observed now. Labels of what was
# seen within 6 s stay; the official score is of the boxes that are seen now.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(
    temporal=dict(_delete_=True, type='CopyMemory', in_channels=384, long_term=True),
    pts_bbox_head=dict(seen_weight=1.0),
    train_cfg=dict(loss_frames='last', grad_frames=4))
train_pipeline = _base_.train_pipeline[:-1] + [dict(type='CountBoxPoints')] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, seq_len=8, keep_seen_s=6.0))
val_evaluator = dict(hidden_boxes='downweight')
test_evaluator = val_evaluator
