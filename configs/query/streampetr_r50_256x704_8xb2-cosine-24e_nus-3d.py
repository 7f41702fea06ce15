# StreamPETR, ResNet-50 at 256x704, cameras alone, 900 queries; as published but for what its `published_quirks` would repeat.
_base_ = [
    '../_base_/models/cameras_r50.py', '../_base_/models/streampetr_head.py', '../_base_/datasets/nus_sequence_streampetr.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    **_base_.streampetr_model)
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=8))
# The rate is for 16 samples a step; the backbone, from ImageNet weights, has a quarter of it.
optim_wrapper = dict(
    optimizer=dict(lr=4e-4), paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.25))))
auto_scale_lr = dict(base_batch_size=16)
