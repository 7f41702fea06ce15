# StreamPETR at its published widths with the pillar encoder beside ResNet-50: tokens of BEV and images in one decoder.
_base_ = './pillar_centerhead.py'
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=50, num_stages=4, out_indices=(2, 3), frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, style='pytorch', with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    img_neck=dict(type='CPFPN', in_channels=[1024, 2048], out_channels=256, num_outs=2),
    pts_bbox_head=dict(
        _delete_=True, type='StreamPETR', num_classes=10, queries=dict(num_learned=644, num_propagated=256),
        image_tokens=dict(in_channels=256, level=0, num_depths=64), bev_tokens=dict(in_channels=384, stride=2),
        transformer=dict(dim=256, num_layers=6, num_heads=8, ffn_dim=2048, dropout=0.1, with_cp=True),
        loss_cfg=dict(code_weights=[2.0, 2.0] + 8 * [1.0], match_code_weights=[2.0, 2.0] + 6 * [1.0] + 2 * [0.0]),
        denoising=dict(groups=10, centre_noise=1.0, split=0.75)),
    temporal=dict(type='QueryMemory', embed_dims=256, num_slots=1024, num_kept=256),
    train_cfg=dict(_delete_=True, loss_frames='all', grad_frames=2),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
