# Beside the 3-D boxes: 2-D boxes and pixel classes of every image, and who covers which BEV cell. The data set needs camera
# labels: tools/create_synthetic_nuscenes.py --camera-labels --out data/synthetic_nuscenes_labels, then tools/create_data.py.
_base_ = ['./futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py', '../_base_/datasets/bev_groups.py']
data_root = 'data/synthetic_nuscenes_labels/'
classes = {{_base_.class_names}}
groups = {{_base_.groups}}
model = dict(
    task_heads=dict(
        img_boxes=dict(type='ImageCenterHead', in_channels=64, num_classes=10, stride=8, loss_weight=0.5),
        img_sem=dict(type='ImageSegHead', in_channels=64, num_classes=13, stride=8, levels=(0, 1), loss_weight=0.5),
        bev_seg=dict(type='BEVSegHead', in_channels=96, classes=classes, groups=groups)))
load_labels = dict(type='LoadImageLabels', classes=classes)
train_pipeline = [*_base_.train_pipeline[:3], load_labels, *_base_.train_pipeline[3:]]
test_pipeline = [*_base_.test_pipeline[:3], load_labels, *_base_.test_pipeline[3:]]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(_base_.val_evaluator, data_root=data_root, ann_file=data_root + 'nuscenes_infos_val.pkl'),
    dict(type='ImageBBoxMetric'), dict(type='ImageSegMetric'),
    dict(type='BEVSegMetric', groups=groups, point_cloud_range={{_base_.point_cloud_range}})]
test_evaluator = val_evaluator
