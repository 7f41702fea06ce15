# FastBEV without LiDAR: the BEV is what the cameras show; 8 GPUs with 1 frame each.
_base_ = [
    '../_base_/models/futrpp_pillar_centerhead.py', '../_base_/datasets/nus_sequence_petr.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    data_preprocessor=dict(voxel=False, voxel_layer=None),
    pts_voxel_encoder=None, pts_middle_encoder=None, pts_backbone=None, pts_neck=None,
    fusion_layer=dict(
        _delete_=True, type='FastBEVFusion', bev_channels=384, img_channels=256, strides=(16,), query_init='learned'))
