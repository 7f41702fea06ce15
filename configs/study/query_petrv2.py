# Row of tools/compare_fusions.py: PETRv2 on single frames; its decoder starts from scratch on the frozen LiDAR part.
_base_ = '../query/petrv2_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(
    temporal=None,
    pts_bbox_head=dict(images=dict(num_frames=1), denoising=dict(groups=3)),
    task_heads=dict(img_boxes=dict(type='ImageCenterHead', in_channels=64, num_classes=10, stride=8)),
    train_cfg=dict(frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
train_pipeline = [*_base_.train_pipeline[:4], dict(type='ProjectImageBoxes'), *_base_.train_pipeline[4:]]
train_dataloader = dict(dataset=dict(seq_len=1, pipeline=train_pipeline))
