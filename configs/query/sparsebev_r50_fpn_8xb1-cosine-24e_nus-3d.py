# SparseBEV at 256x704 with eight frames; 8 GPUs with one clip each. nuImages weights, the backbone at a tenth of the rate.
_base_ = [
    '../_base_/models/sparsebev_r50.py', '../_base_/datasets/nus_sequence_sparsebev.py', '../_base_/schedules/cosine_24e.py',
    '../_base_/default_runtime.py'
]
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(sampling_offset=dict(lr_mult=0.1))))
train_dataloader = dict(batch_size=1)
