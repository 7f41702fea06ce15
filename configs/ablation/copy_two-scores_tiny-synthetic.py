_base_ = '../temporal/copy_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(seen_weight=1.0), test_cfg=dict(hidden_boxes='downweight'))
train_pipeline = _base_.train_pipeline[:-1] + [dict(type='CountBoxPoints')] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
