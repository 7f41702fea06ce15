# The tiny pillar encoder beside tiny cameras: a narrow ResNet-18 from scratch, levels at stride 8 and 16.
_base_ = './pillar_centerhead_tiny.py'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, num_stages=3, base_channels=16, strides=(1, 2, 2), dilations=(1, 1, 1),
        out_indices=(1, 2), norm_cfg=dict(type='BN', requires_grad=True), init_cfg=None),
    img_neck=dict(type='mmdet.FPN', in_channels=[32, 64], out_channels=64, num_outs=2))
