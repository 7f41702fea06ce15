# BEVFormer of cameras alone on the tiny synthetic world: learned queries, temporal self-attention to the BEV before.
_base_ = [
    '../_base_/models/futrpp_pillar_centerhead_tiny.py', '../_base_/datasets/synthetic_sequence_cameras_only.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
model = dict(
    data_preprocessor=dict(voxel=False, voxel_layer=None),
    pts_voxel_encoder=None, pts_middle_encoder=None, pts_backbone=None, pts_neck=None,
    fusion_layer=dict(
        _delete_=True, type='BEVFormerLiteFusion', query_init='learned', bev_channels=64, img_channels=64, strides=(8,),
        layers=dict(num_layers=2, dim=64, num_heads=4, ffn_channels=128), cross_attention=dict(kind='deformable')),
    temporal=dict(type='BEVFormerTemporal', in_channels=64, hidden_dim=64, num_heads=4, ffn_channels=128),
    pts_bbox_head=dict(in_channels=64),
    train_cfg=dict(loss_frames='last', grad_frames=1))
train_dataloader = dict(dataset=dict(seq_len=2))
