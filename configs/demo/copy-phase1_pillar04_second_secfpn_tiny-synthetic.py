# The demo's first phase: the detector without memory, taught what holds points now. Of labels that nothing shows it would learn to doubt
# what it sees, and what is not found when it is seen is not found behind a wall either.
_base_ = './xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
max_epochs = 10
model = dict(temporal=None, pts_bbox_head=dict(seen_weight=1.0))
train_pipeline = _base_.train_pipeline[:-1] + [dict(type='CountBoxPoints')] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=_base_.lr, pct_start=0.15, div_factor=5, by_epoch=True, convert_to_iter_based=True,
         total_steps=max_epochs)
]
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)  # the second phase is what is scored
