# CMT as published with ResNet-50: voxels of 0.1 m within 54 m, images at 320x800; 8 GPUs with 4 frames each. The published grid has
# 1024 of the 1080 cells that this range has, so the farthest are lost and the map is stretched; here 1088 cells fill it.
_base_ = [
    '../_base_/models/cmt_voxel.py', '../_base_/datasets/nus_sequence_cmt.py', '../_base_/schedules/cyclic_cmt_20e.py',
    '../_base_/default_runtime.py'
]
model = dict(grid=dict(
    point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[108 / 1088, 108 / 1088, 0.2], out_size_factor=8))
