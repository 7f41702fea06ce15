# StreamPETR, V2-99 at 320x800, cameras alone: the published 57.1 NDS; images are RGB here, unlike PETRv2's.
_base_ = [
    '../_base_/models/cameras_v99.py', '../_base_/models/streampetr_head.py', '../_base_/datasets/nus_sequence_streampetr_320x800.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    **_base_.streampetr_model)
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=8))
optim_wrapper = dict(optimizer=dict(lr=4e-4))  # for 16 samples a step
auto_scale_lr = dict(base_batch_size=16)
