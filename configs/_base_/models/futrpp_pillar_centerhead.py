# PointPillars with six cameras through FuTr++: ResNet-50 with an FPN level at stride 16.
_base_ = './pillar_centerhead.py'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=50, num_stages=4, out_indices=(2, 3), frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True, style='pytorch',
        with_cp=True,  # recomputes activations in the backward pass: six images a frame would fill the memory
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    img_neck=dict(type='mmdet.FPN', in_channels=[1024, 2048], out_channels=256, num_outs=2),
    fusion_layer=dict(
        type='FuTrPlusPlus', bev_channels=384, img_channels=256, strides=(16, 32),
        tokens=dict(grid=8, dim=128), geometry=dict(kind='ray'), film=dict(kind='per_camera_gated'),
        select=dict(kind='learned', active_ratio=0.1), sample=dict(kind='deformable')))
