# FastBEV without LiDAR: the BEV is what the cameras show.
_base_ = [
    '../_base_/models/futrpp_pillar_centerhead_tiny.py', '../_base_/datasets/synthetic_sequence_cameras_only.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(voxel=False, voxel_layer=None),
    pts_voxel_encoder=None, pts_middle_encoder=None, pts_backbone=None, pts_neck=None,
    fusion_layer=dict(
        _delete_=True, type='FastBEVFusion', bev_channels=96, img_channels=64, strides=(8,), query_init='learned',
        channels=32))
train_dataloader = dict(batch_size=4)
