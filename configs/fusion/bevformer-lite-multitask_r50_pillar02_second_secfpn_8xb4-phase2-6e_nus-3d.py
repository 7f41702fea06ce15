# One BEV with heads for boxes, BEV segmentation and occupancy, in three phases. Phase 1 is bevformer-lite_*: BEV and boxes.
# Phase 2, here: both stay as they are, the other two heads learn on this BEV.
_base_ = ['./bevformer-lite_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', '../_base_/datasets/bev_groups.py']
load_from = 'work_dirs/bevformer-lite_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d/epoch_20.pth'
lr = 1e-3
max_epochs = 6
classes = {{_base_.class_names}}
groups = {{_base_.groups}}
occupied = dict(occupied=classes)
model = dict(
    task_heads=dict(
        bev_seg=dict(type='BEVSegHead', in_channels=384, classes=classes, groups=groups),
        occupancy=dict(type='BEVSegHead', in_channels=384, classes=classes, groups=occupied, field='pred_occupancy')),
    train_cfg=dict(frozen=[
        'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck', 'img_backbone', 'img_neck', 'fusion_layer',
        'pts_bbox_head']))
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=lr, pct_start=0.3, div_factor=10, by_epoch=True, convert_to_iter_based=True,
         total_steps=max_epochs)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
cells = dict(type='BEVSegMetric', point_cloud_range={{_base_.point_cloud_range}})
val_evaluator = [
    _base_.val_evaluator, dict(**cells, groups=groups),
    dict(**cells, groups=occupied, prefix='occupancy', field='pred_occupancy')]
test_evaluator = val_evaluator
