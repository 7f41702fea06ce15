# SparseBEV with cameras and LiDAR at the full nuScenes grid, on the LiDAR-only detector; 8 GPUs with one clip each.
# Of its eight frames the last one's LiDAR is encoded.
_base_ = [
    '../_base_/models/sparsebev_pillar.py', '../_base_/datasets/nus_sequence_cameras.py', '../_base_/schedules/cosine_24e.py',
    '../_base_/default_runtime.py'
]
load_from = 'work_dirs/lidar-only_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d/epoch_20.pth'
custom_hooks = _base_.custom_hooks + [dict(type='FreshSlotsHook', slots=['pts_bbox_head'])]  # its head is another
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(sampling_offset=dict(lr_mult=0.1))))
train_dataloader = dict(batch_size=1, dataset=dict(seq_len=8))
