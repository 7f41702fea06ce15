# PETRv2 with LiDAR BEV tokens beside the image tokens of two frames, on the LiDAR-only detector; 8 GPUs with a clip each. The
# LiDAR encoder is CMT's; images are read as without LiDAR.
_base_ = [
    '../_base_/models/cmt_pillar.py', '../_base_/models/petrv2_head.py', '../_base_/datasets/nus_sequence_cameras.py',
    '../_base_/schedules/cosine_24e.py', '../_base_/default_runtime.py'
]
load_from = 'work_dirs/lidar-only_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d/epoch_20.pth'
custom_hooks = _base_.custom_hooks + [dict(type='FreshSlotsHook', slots=['pts_bbox_head'])]  # its head is another
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    img_backbone=dict(
        norm_cfg=dict(requires_grad=False),
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50')),
    pts_bbox_head=dict(_delete_=True, bev=dict(in_channels=384, stride=2), **_base_.petrv2_model.pts_bbox_head),
    temporal=_base_.petrv2_model.temporal, train_cfg=dict(loss_frames='last'))
train_dataloader = dict(batch_size=1, dataset=dict(seq_len=2))
