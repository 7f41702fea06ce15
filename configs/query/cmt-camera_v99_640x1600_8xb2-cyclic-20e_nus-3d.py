# CMT as published with cameras alone: V2-99, images at 640x1600; 8 GPUs with 2 frames each.
_base_ = [
    '../_base_/models/cameras_v99.py', '../_base_/models/cmt_head.py', '../_base_/datasets/nus_sequence_cmt_640x1600.py',
    '../_base_/schedules/cyclic_cmt_20e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.1, 0.1, 8.0], out_size_factor=8),
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False),
    pts_bbox_head=dict(**_base_.cmt_head, inputs=dict(img_channels=256, num_depths=64)))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [{**_base_.param_scheduler[0], 'eta_min_ratio': 8.0}, *_base_.param_scheduler[1:]]
auto_scale_lr = dict(base_batch_size=16)
