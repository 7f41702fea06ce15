# The same at 320x800.
_base_ = './nus_sequence_petr_320x800.py'
train_pipeline = [*_base_.train_pipeline[:2], dict(type='ProjectImageBoxes'), *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
