# The same at 320x800, as published for V2-99: images are resized to 0.47..0.625.
_base_ = './nus_sequence_petr.py'
sizes = dict(ResizeImages=dict(scale_range=(0.47, 0.625)), CropImages=dict(size=(320, 800)))
train_pipeline = [{**step, **sizes.get(step['type'], {})} for step in _base_.train_pipeline]
sizes['ResizeImages'] = dict(width=800)
test_pipeline = [{**step, **sizes.get(step['type'], {})} for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
