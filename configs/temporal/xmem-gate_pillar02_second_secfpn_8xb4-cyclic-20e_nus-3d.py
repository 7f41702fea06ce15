# XMem-gated PointPillars at the full nuScenes grid: clips of 4 keyframes for training, streaming for testing.
_base_ = [
    '../_base_/models/xmem_gate_pillar_centerhead.py', '../_base_/datasets/nus_sequence.py',
    'mmdet3d::_base_/schedules/cyclic-20e.py', '../_base_/default_runtime.py'
]
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4))
