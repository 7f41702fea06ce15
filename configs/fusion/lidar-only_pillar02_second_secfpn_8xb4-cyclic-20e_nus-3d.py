# The same frames, augmentation and schedule without cameras: what the fused detectors are compared with, and start from.
_base_ = [
    '../_base_/models/pillar_centerhead.py', '../_base_/datasets/nus_sequence.py',
    'mmdet3d::_base_/schedules/cyclic-20e.py', '../_base_/default_runtime.py'
]
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4))
train_dataloader = dict(dataset=dict(seq_len=1))
