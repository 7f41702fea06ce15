# FuTr at the full nuScenes grid, on the LiDAR-only detector beside it; 8 GPUs with 4 frames each.
_base_ = [
    '../_base_/models/futr_pillar_centerhead.py', '../_base_/datasets/nus_sequence_cameras.py',
    'mmdet3d::_base_/schedules/cyclic-20e.py', '../_base_/default_runtime.py'
]
load_from = 'work_dirs/lidar-only_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d/epoch_20.pth'
model = dict(grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4))
