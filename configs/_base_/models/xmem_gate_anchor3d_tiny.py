# The same with anchors instead of CenterHead's heat maps.
# What mmdet3d's settings, made for long training and cells of 0.5 m, lack here: an anchor and an assigner for each class,
# thresholds that anchors reach on cells of 0.8 m, which are larger than a person, and losses as large as CenterHead's, so
# that the occupancy loss beside them does not rule the shared layers.
_base_ = './xmem_gate_pillar_centerhead_tiny.py'
iou = dict(type='BboxOverlapsNearest3D')
anchors = dict(  # in the order of the data set's class_names: length, width, height in m; overlap to be positive, negative
    car=([4.6, 1.95, 1.7], 0.6, 0.45),
    truck=([6.8, 2.5, 2.9], 0.6, 0.45),
    construction_vehicle=([6.8, 2.5, 2.9], 0.6, 0.45),
    bus=([11.0, 2.95, 3.3], 0.6, 0.45),
    trailer=([12.2, 2.9, 3.95], 0.6, 0.45),
    barrier=([0.5, 2.5, 1.0], 0.3, 0.2),
    motorcycle=([1.9, 0.75, 1.45], 0.3, 0.2),
    bicycle=([1.9, 0.75, 1.45], 0.3, 0.2),
    pedestrian=([0.72, 0.68, 1.76], 0.15, 0.1),
    traffic_cone=([0.42, 0.42, 1.0], 0.1, 0.05))
model = dict(
    pts_bbox_head=dict(
        _delete_=True,
        type='SyncAnchor3DHead',
        num_classes=10,
        in_channels=96,
        feat_channels=96,
        assign_per_class=True,
        anchor_generator=dict(
            type='AlignedAnchor3DRangeGenerator', ranges=[[None, None, -1.84, None, None, -1.84]] * 10,
            sizes=[size for size, _, _ in anchors.values()], custom_values=[0, 0], rotations=[0, 1.57], reshape_out=False),
        dir_offset=-0.7854,
        bbox_coder=dict(type='DeltaXYZWLHRBBoxCoder', code_size=9),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=12.0),
        loss_bbox=dict(type='mmdet.SmoothL1Loss', beta=1.0 / 9.0, loss_weight=3.0),
        loss_dir=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.2)),
    train_cfg=dict(pts=dict(
        _delete_=True,
        assigner=[
            dict(type='AllBoxesMax3DIoUAssigner', iou_calculator=iou, pos_iou_thr=positive, neg_iou_thr=negative,
                 min_pos_iou=0.03, ignore_iof_thr=-1) for _, positive, negative in anchors.values()],
        allowed_border=0, code_weight=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2], pos_weight=-1, debug=False)),
    test_cfg=dict(pts=dict(
        _delete_=True, use_rotate_nms=True, nms_across_levels=False, nms_pre=1000, nms_thr=0.2, score_thr=0.05,
        min_bbox_size=0, max_num=500)))
