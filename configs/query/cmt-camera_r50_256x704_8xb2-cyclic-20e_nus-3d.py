# CMT with six cameras at 256x704 alone; 8 GPUs with 2 frames each. ResNet-50 starts from nuImages, as in CMT with LiDAR.
_base_ = [
    '../_base_/models/cameras_r50.py', '../_base_/models/cmt_head.py', '../_base_/datasets/nus_sequence_petr.py',
    '../_base_/schedules/cyclic_cmt_20e.py', '../_base_/default_runtime.py'
]
nuimages = 'https://download.openmmlab.com/mmdetection3d/v0.1.0_models/nuimages_semseg/'
run = 'cascade_mask_rcnn_r50_fpn_coco-20e_20e_nuim'
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    img_backbone=dict(
        norm_cfg=dict(requires_grad=True),
        init_cfg=dict(checkpoint=f'{nuimages}{run}/{run}_20201009_124951-40963960.pth', prefix='backbone')),
    pts_bbox_head=dict(**_base_.cmt_head, inputs=dict(img_channels=256, num_depths=64)))
train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=0.7e-4))  # the published rate is that of 32 frames a step
auto_scale_lr = dict(base_batch_size=16)
