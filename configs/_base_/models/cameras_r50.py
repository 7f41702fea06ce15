# Six cameras without LiDAR: ResNet-50 and PETR's two-level FPN (stride 16, stride 32). A head and `model.grid` come from the leaf.
model = dict(
    type='TemporalFusionDetector',
    data_preprocessor=dict(
        type='ClipDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_size_divisor=32),
    img_backbone=dict(
        type='mmdet.ResNet', depth=50, num_stages=4, out_indices=(2, 3), frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, style='pytorch',
        with_cp=True,  # recomputes activations in the backward pass: six images a frame would fill the memory
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    img_neck=dict(type='CPFPN', in_channels=[1024, 2048], out_channels=256, num_outs=2),
    train_cfg=dict(loss_frames='last'),
    test_cfg=dict(mode='streaming', seq_len=8, stride=1))  # seq_len and stride are those of mode='window'
