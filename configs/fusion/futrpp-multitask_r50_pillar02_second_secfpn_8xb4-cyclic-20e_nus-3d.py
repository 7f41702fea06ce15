# Beside the 3-D boxes: 2-D boxes (projected 3-D ones), sparse pixel classes (nuScenes-lidarseg), and who
# covers which BEV cell.
_base_ = ['./futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', '../_base_/datasets/bev_groups.py']
classes = {{_base_.class_names}}
groups = {{_base_.groups}}
model = dict(
    task_heads=dict(
        img_boxes=dict(type='ImageCenterHead', in_channels=256, num_classes=10, stride=16, loss_weight=0.5),
        img_sem=dict(type='ImageSegHead', in_channels=256, num_classes=13, stride=16, levels=(0, 1), loss_weight=0.5),
        bev_seg=dict(type='BEVSegHead', in_channels=384, classes=classes, groups=groups)))
image_labels = [
    dict(type='ProjectImageBoxes'),
    dict(type='ProjectLidarsegLabels', classes=classes, folder=_base_.data_root + 'lidarseg/v1.0-trainval')]
train_pipeline = [*_base_.train_pipeline[:4], *image_labels, *_base_.train_pipeline[4:]]
test_pipeline = [*_base_.test_pipeline[:3], *image_labels, *_base_.test_pipeline[3:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    _base_.val_evaluator,
    dict(type='ImageBBoxMetric'), dict(type='ImageSegMetric'),
    dict(type='BEVSegMetric', groups=groups, point_cloud_range={{_base_.point_cloud_range}})]
test_evaluator = val_evaluator
