# CMT with cameras alone at 640x1600 of 900x1600, as published for V2-99: PETR's turns and scales, rare classes more often.
_base_ = './nus_sequence_petr.py'
point_cloud_range = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
changes = dict(
    ResizeImages=dict(scale_range=(0.94, 1.25)), CropImages=dict(size=(640, 1600)),
    ObjectRangeFilter=dict(point_cloud_range=point_cloud_range))
train_pipeline = [
    {**step, **changes.get(step['type'], {})} for step in _base_.train_pipeline if step['type'] != 'MaskImageGrid']
changes['ResizeImages'] = dict(width=1600)
test_pipeline = [{**step, **changes.get(step['type'], {})} for step in _base_.test_pipeline]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(_delete_=True, type='SeededCBGSDataset', dataset={
        **_base_.train_dataloader.dataset, 'pipeline': train_pipeline, 'use_valid_flag': False}))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
