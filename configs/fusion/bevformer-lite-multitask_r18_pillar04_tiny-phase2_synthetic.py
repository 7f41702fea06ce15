# Tiny twin of phase 2: `tools/train.py configs/fusion/bevformer-lite_r18_pillar04_second_secfpn_tiny-synthetic.py` is phase 1.
_base_ = ['./bevformer-lite_r18_pillar04_second_secfpn_tiny-synthetic.py', '../_base_/datasets/bev_groups.py']
load_from = 'work_dirs/bevformer-lite_r18_pillar04_second_secfpn_tiny-synthetic/epoch_13.pth'
max_epochs = 4
classes = {{_base_.class_names}}
groups = {{_base_.groups}}
occupied = dict(occupied=classes)
hardest = dict(type='OccupancyLoss', warmup_iters=(40, 160))
model = dict(
    task_heads=dict(
        bev_seg=dict(type='BEVSegHead', in_channels=96, classes=classes, groups=groups, loss_seg=hardest),
        occupancy=dict(
            type='BEVSegHead', in_channels=96, classes=classes, groups=occupied, field='pred_occupancy', loss_seg=hardest)),
    train_cfg=dict(frozen=[
        'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck', 'img_backbone', 'img_neck', 'fusion_layer',
        'pts_bbox_head']))
param_scheduler = [
    dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.3, by_epoch=True, convert_to_iter_based=True, total_steps=max_epochs)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
cells = dict(type='BEVSegMetric', point_cloud_range={{_base_.point_cloud_range}})
val_evaluator = [
    _base_.val_evaluator, dict(**cells, groups=groups),
    dict(**cells, groups=occupied, prefix='occupancy', field='pred_occupancy')]
test_evaluator = val_evaluator
