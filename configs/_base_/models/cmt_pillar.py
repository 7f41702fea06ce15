# CMT at its published widths: LiDAR BEV tokens of the pillar encoder, image tokens of ResNet-50 at stride 16. That starts from
# nuImages, as published: it learns at a hundredth of the rate.
_base_ = ['./pillar_centerhead.py', './cmt_head.py']
nuimages = 'https://download.openmmlab.com/mmdetection3d/v0.1.0_models/nuimages_semseg/'
run = 'cascade_mask_rcnn_r50_fpn_coco-20e_20e_nuim'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=50, num_stages=4, out_indices=(2, 3), frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True, style='pytorch',
        with_cp=True,  # recomputes activations in the backward pass: six images a frame would fill the memory
        init_cfg=dict(
            type='Pretrained', checkpoint=f'{nuimages}{run}/{run}_20201009_124951-40963960.pth', prefix='backbone')),
    img_neck=dict(type='CPFPN', in_channels=[1024, 2048], out_channels=256, num_outs=2),
    pts_bbox_head=dict(
        _delete_=True, **_base_.cmt_head, inputs=dict(img_channels=256, bev_channels=384, num_depths=64),
        masked_modal=dict(cameras=0.25, lidar=0.25)),
    train_cfg=dict(_delete_=True, loss_frames='all'),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
