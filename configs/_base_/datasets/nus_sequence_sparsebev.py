# PETR's 256x704 images with other colours too, as published for SparseBEV; clips of eight frames, half a second apart.
_base_ = './nus_sequence_petr.py'
train_pipeline = [
    *_base_.train_pipeline[:2], dict(type='DistortImagesPhotometric'), *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, seq_len=8))
