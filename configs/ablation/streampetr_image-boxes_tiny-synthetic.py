# Images learn 2-D boxes beside, those around the 3-D ones.
_base_ = '../query/streampetr_r18_fpn_tiny-synthetic.py'
model = dict(task_heads=dict(img_boxes=dict(type='ImageCenterHead', in_channels=64, num_classes=10, stride=8)))
train_pipeline = [*_base_.train_pipeline[:2], dict(type='ProjectImageBoxes'), *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
