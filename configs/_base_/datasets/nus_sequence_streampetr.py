# PETR's 256x704 images with 2-D boxes to learn from as well, those around the 3-D ones.
_base_ = './nus_sequence_petr.py'
train_pipeline = [*_base_.train_pipeline[:2], dict(type='ProjectImageBoxes'), *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
