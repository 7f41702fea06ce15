# CMT's cycle over 20 epochs: up to 6 times the rate in 8 epochs, then down to a ten-thousandth; the momentum goes the other way.
# The image backbone has a hundredth of the rate, its neck a tenth. The rate is that of 32 samples a step.
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.4e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.01, decay_mult=5.0), img_neck=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=35, norm_type=2))
rise, fall = (dict(by_epoch=True, convert_to_iter_based=True, begin=begin, end=end, T_max=end - begin)
              for begin, end in ((0, 8), (8, 20)))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min_ratio=6.0, **rise),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-4, **fall),
    dict(type='CosineAnnealingMomentum', eta_min_ratio=0.85 / 0.95, **rise),
    dict(type='CosineAnnealingMomentum', eta_min_ratio=1.0, **fall),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=20)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)
