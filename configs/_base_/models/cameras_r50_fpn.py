# ResNet-50 with an FPN of four levels (stride 4 to 32), SparseBEV's, pretrained on nuImages.
_base_ = './cameras_r50.py'
nuimages = 'https://download.openmmlab.com/mmdetection3d/v0.1.0_models/nuimages_semseg/'
run = 'cascade_mask_rcnn_r50_fpn_coco-20e_20e_nuim'
model = dict(
    img_backbone=dict(
        out_indices=(0, 1, 2, 3), frozen_stages=1, norm_cfg=dict(requires_grad=True),
        init_cfg=dict(checkpoint=f'{nuimages}{run}/{run}_20201009_124951-40963960.pth', prefix='backbone')),
    img_neck=dict(type='mmdet.FPN', in_channels=[256, 512, 1024, 2048], num_outs=4))
