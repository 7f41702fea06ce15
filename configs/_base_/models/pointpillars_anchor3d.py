# mmdet3d's PointPillars with an Anchor3DHead on SECONDFPN (configs/lidar/pointpillars_hv_secfpn_*), whose checkpoints load.
# BatchNorm is not synchronised: a process whose frames were all dropped would keep the others waiting.
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.01)
model = dict(
    type='TemporalFusionDetector',
    grid=dict(point_cloud_range=[-50, -50, -5, 50, 50, 3], voxel_size=[0.25, 0.25, 8], out_size_factor=2),
    data_preprocessor=dict(
        type='ClipDataPreprocessor', voxel=True, voxel_layer=dict(max_num_points=64, max_voxels=(30000, 40000))),
    pts_voxel_encoder=dict(
        type='HardVFE', in_channels=4, feat_channels=[64, 64], with_distance=False, with_cluster_center=True,
        with_voxel_center=True, norm_cfg=dict(type='BN1d', eps=1e-3, momentum=0.01)),
    pts_middle_encoder=dict(type='BatchedPillarsScatter', in_channels=64),
    pts_backbone=dict(
        type='SECOND', in_channels=64, norm_cfg=norm_cfg, layer_nums=[3, 5, 5], layer_strides=[2, 2, 2],
        out_channels=[64, 128, 256]),
    pts_neck=dict(
        type='SECONDFPN', norm_cfg=norm_cfg, in_channels=[64, 128, 256], upsample_strides=[1, 2, 4],
        out_channels=[128, 128, 128]),
    pts_bbox_head=dict(
        type='SyncAnchor3DHead',
        num_classes=10,
        in_channels=384,
        feat_channels=384,
        use_direction_classifier=True,
        anchor_generator=dict(
            type='AlignedAnchor3DRangeGenerator',
            # x and y of the published config, 0.4 m inside the grid; None is the grid's own
            ranges=[[-49.6, -49.6, z, 49.6, 49.6, z] for z in (
                -1.80032795, -1.74440365, -1.68526504, -1.67339111, -1.61785072, -1.80984986, -1.763965)],
            sizes=[
                [4.60718145, 1.95017717, 1.72270761],  # car
                [6.73778078, 2.4560939, 2.73004906],  # truck
                [12.01320693, 2.87427237, 3.81509561],  # trailer
                [1.68452161, 0.60058911, 1.27192197],  # bicycle
                [0.7256437, 0.66344886, 1.75748069],  # pedestrian
                [0.40359262, 0.39694519, 1.06232151],  # traffic_cone
                [0.48578221, 2.49008838, 0.98297065],  # barrier
            ],
            custom_values=[0, 0], rotations=[0, 1.57], reshape_out=True),
        assigner_per_size=False,  # anchors of any size may be of any class
        diff_rad_by_sin=True,
        dir_offset=-0.7854,
        bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder', code_size=9),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0),
        loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.2)),
    train_cfg=dict(
        loss_frames='all',
        pts=dict(
            assigner=dict(
                type='AllBoxesMax3DIoUAssigner', iou_calculator=dict(type='BboxOverlapsNearest3D'), pos_iou_thr=0.6,
                neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1),
            allowed_border=0, code_weight=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2], pos_weight=-1, debug=False)),
    test_cfg=dict(
        mode='streaming', seq_len=8, stride=1,  # seq_len and stride are those of mode='window'
        pts=dict(
            use_rotate_nms=True, nms_across_levels=False, nms_pre=1000, nms_thr=0.2, score_thr=0.05, min_bbox_size=0,
            max_num=500)))
