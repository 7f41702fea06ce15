# mmdet3d's config of the same name: its detector, its numbers, its checkpoints.
_base_ = [
    'mmdet3d::_base_/models/centerpoint_pillar02_second_secfpn_nus.py', '../_base_/datasets/nus_frame.py',
    'mmdet3d::_base_/schedules/cyclic-20e.py', '../_base_/default_runtime.py'
]
point_cloud_range = {{_base_.point_cloud_range}}
model = dict(
    data_preprocessor=dict(voxel_layer=dict(point_cloud_range=point_cloud_range)),
    pts_voxel_encoder=dict(point_cloud_range=point_cloud_range),
    pts_bbox_head=dict(bbox_coder=dict(pc_range=[-51.2, -51.2])),
    train_cfg=dict(pts=dict(point_cloud_range=point_cloud_range)),
    test_cfg=dict(pts=dict(pc_range=[-51.2, -51.2])))
