# CMT as published with ResNet-50: voxels of 0.1 m within 54 m, images at 320x800; 8 GPUs with 4 frames each.
_base_ = [
    '../_base_/models/cmt_voxel.py', '../_base_/datasets/nus_sequence_cmt.py', '../_base_/schedules/cyclic_cmt_20e.py',
    '../_base_/default_runtime.py'
]
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.1, 0.1, 0.2], out_size_factor=8))
