# PointPillars with a CenterHead at mmdet3d's published widths. The numbers of the grid come from `model.grid` in the leaf.
model = dict(
    type='TemporalFusionDetector',
    data_preprocessor=dict(
        type='ClipDataPreprocessor', voxel=True, voxel_layer=dict(max_num_points=20, max_voxels=(30000, 40000))),
    pts_voxel_encoder=dict(
        type='PillarFeatureNet', in_channels=5, feat_channels=[64], with_distance=False, legacy=False,
        norm_cfg=dict(type='BN1d', eps=1e-3, momentum=0.01)),
    pts_middle_encoder=dict(type='BatchedPillarsScatter', in_channels=64),
    pts_backbone=dict(
        type='SECOND', in_channels=64, out_channels=[64, 128, 256], layer_nums=[3, 5, 5], layer_strides=[2, 2, 2],
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01), conv_cfg=dict(type='Conv2d', bias=False)),
    pts_neck=dict(
        type='SECONDFPN', in_channels=[64, 128, 256], out_channels=[128, 128, 128], upsample_strides=[0.5, 1, 2],
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01), upsample_cfg=dict(type='deconv', bias=False),
        use_conv_for_no_stride=True),
    pts_bbox_head=dict(
        type='InitCenterHead', in_channels=384,
        tasks=[
            dict(num_class=1, class_names=['car']),
            dict(num_class=2, class_names=['truck', 'construction_vehicle']),
            dict(num_class=2, class_names=['bus', 'trailer']),
            dict(num_class=1, class_names=['barrier']),
            dict(num_class=2, class_names=['motorcycle', 'bicycle']),
            dict(num_class=2, class_names=['pedestrian', 'traffic_cone']),
        ],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=64,
        bbox_coder=dict(
            type='CenterPointBBoxCoder', max_num=500, score_threshold=0.1, code_size=9),
        separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3),
        loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
        loss_bbox=dict(type='MaskedL1Loss', reduction='mean', loss_weight=0.25),
        norm_bbox=True),
    train_cfg=dict(
        loss_frames='all',
        pts=dict(
            dense_reg=1, gaussian_overlap=0.1, max_objs=500, min_radius=2,
            code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2])),
    test_cfg=dict(
        mode='streaming', seq_len=8, stride=1,  # seq_len and stride are those of mode='window'
        pts=dict(
            max_per_img=500, max_pool_nms=False,
            min_radius=[4, 12, 10, 1, 0.85, 0.175], score_threshold=0.1, nms_type='rotate', pre_max_size=1000,
            post_max_size=83, nms_thr=0.2)))
