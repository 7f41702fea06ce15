# BEVFormer of cameras alone: learned queries, BEVFormer's own spatial attention over one level, and temporal self-attention to
# the BEV before. 24 epochs of the published schedule at the rate of 32 samples a step.
_base_ = [
    '../_base_/models/futrpp_pillar_centerhead.py', '../_base_/datasets/nus_sequence_petr.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    data_preprocessor=dict(voxel=False, voxel_layer=None),
    pts_voxel_encoder=None, pts_middle_encoder=None, pts_backbone=None, pts_neck=None,
    fusion_layer=dict(
        _delete_=True, type='BEVFormerLiteFusion', query_init='learned', bev_channels=256, img_channels=256, strides=(16,),
        layers=dict(num_layers=3, dim=256, ffn_channels=512), cross_attention=dict(kind='deformable', num_points=8)),
    temporal=dict(type='BEVFormerTemporal', in_channels=256, hidden_dim=256, ffn_channels=512),
    pts_bbox_head=dict(in_channels=256),
    train_cfg=dict(loss_frames='last', grad_frames=1))  # as published: the frames before are only remembered
train_dataloader = dict(batch_size=4, dataset=dict(seq_len=3))
optim_wrapper = dict(optimizer=dict(lr=4e-4))
auto_scale_lr = dict(base_batch_size=32)
