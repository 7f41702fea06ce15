# PETRv2 with ResNet-50 and six cameras at 256x704, two frames of 0.5 s; 8 GPUs with a clip each.
_base_ = [
    '../_base_/models/cameras_r50.py', '../_base_/models/petrv2_head.py', '../_base_/datasets/nus_sequence_petr.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    **_base_.petrv2_model)
train_dataloader = dict(dataset=dict(seq_len=2))
