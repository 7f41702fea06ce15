# PETRv2 with V2-99 at 320x800, the published setting (50.3 NDS); images stay BGR, as that backbone was pretrained.
_base_ = [
    '../_base_/models/cameras_v99.py', '../_base_/models/petrv2_head.py', '../_base_/datasets/nus_sequence_petr_320x800.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False),
    **_base_.petrv2_model)
train_dataloader = dict(dataset=dict(seq_len=2))
