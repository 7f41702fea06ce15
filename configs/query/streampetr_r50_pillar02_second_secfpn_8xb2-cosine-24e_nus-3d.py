# StreamPETR with LiDAR and six cameras at 256x704, on the LiDAR-only detector's encoder; 8 GPUs with 2 clips of four frames each.
# Without the 2-D head.
_base_ = [
    '../_base_/models/streampetr_pillar.py', '../_base_/datasets/nus_sequence_cameras.py', '../_base_/schedules/cosine_24e.py',
    '../_base_/default_runtime.py'
]
load_from = 'work_dirs/lidar-only_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d/epoch_20.pth'
custom_hooks = _base_.custom_hooks + [dict(type='FreshSlotsHook', slots=['pts_bbox_head'])]  # its head is another
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4))
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=4))
# As without LiDAR: the rate is for 16 samples a step; the backbone, from ImageNet weights, has a quarter of it.
optim_wrapper = dict(
    optimizer=dict(lr=4e-4), paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.25))))
auto_scale_lr = dict(base_batch_size=16)
