# The demo: a small PointPillars that copies what it saw to where nothing is observed now, minutes on a CPU. The encoders are those of the
# first phase; memory and head learn, of clips longer than the slots, in scenes in which much is hidden, with labels of what was seen
# within 2 s kept. tools/demo.py makes the scenes.
_base_ = '../temporal/copy_pillar04_second_secfpn_tiny-synthetic.py'
load_from = 'work_dirs/demo/phase1/epoch_10.pth'
max_epochs = 3
model = dict(
    temporal=dict(value='bev'),
    pts_bbox_head=dict(seen_weight=1.0),
    train_cfg=dict(loss_frames='last', frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
train_pipeline = _base_.train_pipeline[:-1] + [dict(type='CountBoxPoints')] + _base_.train_pipeline[-1:]
train_dataloader = dict(dataset=dict(data_root='data/synthetic_nuscenes_occlusion/', pipeline=train_pipeline))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=2e-3, pct_start=0.3, by_epoch=True, convert_to_iter_based=True, total_steps=max_epochs)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
val_evaluator = dict(hidden_boxes='downweight')  # the official score counts what is found behind a wall as false
test_evaluator = val_evaluator
