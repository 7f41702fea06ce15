# A narrow PointPillars with anchors for a CPU and the near range; encoder, backbone and neck are pillar_centerhead_tiny's.
_base_ = './pillar_centerhead_tiny.py'
model = dict(
    pts_bbox_head=dict(
        _delete_=True,
        type='SyncAnchor3DHead',
        num_classes=10,
        in_channels=96,
        feat_channels=96,
        anchor_generator=dict(
            type='AlignedAnchor3DRangeGenerator',
            ranges=[[None, None, z, None, None, z] for z in (-1.84, -1.84, -1.84, -1.84, -1.84, -1.84, -1.84)],
            sizes=[
                [4.6, 1.95, 1.7],  # car
                [6.8, 2.5, 2.9],  # truck, construction_vehicle
                [11.6, 2.9, 3.6],  # bus, trailer
                [1.9, 0.75, 1.45],  # bicycle, motorcycle
                [0.72, 0.68, 1.76],  # pedestrian
                [0.42, 0.42, 1.0],  # traffic_cone
                [0.5, 2.5, 1.0],  # barrier
            ],
            custom_values=[0, 0], rotations=[0, 1.57]),
        dir_offset=-0.7854,
        bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder', code_size=9),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0),
        loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=0.2)),
    train_cfg=dict(pts=dict(
        _delete_=True,
        # Cells of 0.8 m are larger than a person: the nearest anchor is taken even where it hardly overlaps.
        assigner=dict(
            type='Max3DIoUAssigner', iou_calculator=dict(type='BboxOverlapsNearest3D'), pos_iou_thr=0.5, neg_iou_thr=0.3,
            min_pos_iou=0.05, ignore_iof_thr=-1),
        allowed_border=0, code_weight=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2], pos_weight=-1, debug=False)),
    test_cfg=dict(pts=dict(
        _delete_=True, use_rotate_nms=True, nms_across_levels=False, nms_pre=1000, nms_thr=0.2, score_thr=0.05,
        min_bbox_size=0, max_num=500)))
