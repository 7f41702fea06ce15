# Row of tools/compare_fusions.py: StreamPETR on single frames, so without a memory; its decoder starts from scratch.
_base_ = '../query/streampetr_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(
    temporal=None,
    pts_bbox_head=dict(queries=dict(num_learned=128, num_propagated=0)),
    task_heads=dict(img_boxes=dict(type='ImageCenterHead', in_channels=64, num_classes=10, stride=8)),
    train_cfg=dict(frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
train_pipeline = [*_base_.train_pipeline[:4], dict(type='ProjectImageBoxes'), *_base_.train_pipeline[4:]]
train_dataloader = dict(dataset=dict(seq_len=1, pipeline=train_pipeline))
