# The head of OpenPCDet's cbgs_pp_multihead (58.23 NDS): `model = {{_base_.multihead_model}}` puts it into a leaf.
groups = [
    ['car'], ['truck', 'construction_vehicle'], ['bus', 'trailer'], ['barrier'], ['motorcycle', 'bicycle'],
    ['pedestrian', 'traffic_cone']
]
anchor_table = dict(  # length, width, height, bottom, positive from, background under
    car=(4.63, 1.97, 1.74, -0.95, 0.6, 0.45),
    truck=(6.93, 2.51, 2.84, -0.6, 0.55, 0.4),
    construction_vehicle=(6.37, 2.85, 3.19, -0.225, 0.5, 0.35),
    bus=(10.5, 2.94, 3.47, -0.085, 0.55, 0.4),
    trailer=(12.29, 2.9, 3.87, 0.115, 0.5, 0.35),
    barrier=(0.5, 2.53, 0.98, -1.33, 0.55, 0.4),
    motorcycle=(2.11, 0.77, 1.47, -1.085, 0.5, 0.3),
    bicycle=(1.7, 0.6, 1.28, -1.18, 0.5, 0.35),
    pedestrian=(0.73, 0.67, 1.77, -0.935, 0.6, 0.4),
    traffic_cone=(0.41, 0.41, 1.07, -1.285, 0.6, 0.4))
anchors = {
    name: dict(sizes_m=[row[:3]], bottom_heights_m=[row[3]], pos_iou_thr=row[4], neg_iou_thr=row[5], rotations_rad=[0, 1.57])
    for name, row in anchor_table.items()
}
multihead_model = dict(
    pts_neck=dict(use_conv_for_no_stride=False),  # a transposed 1 x 1 convolution, as published
    pts_bbox_head=dict(
        _delete_=True, type='AnchorHeadMulti', in_channels=384,
        tasks=[dict(num_class=len(names), class_names=names) for names in groups], anchors=anchors,
        bbox_coder=dict(type='ResidualBoxCoder', sincos_yaw=True), shared_channels=64,
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
        branches=dict(
            numbers=dict(reg=2, height=1, size=3, angle=2, velo=2), channels=64, num_convs=1,
            norm_cfg=dict(type='BN', eps=1e-5, momentum=0.1)),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='MaskedL1Loss', loss_weight=0.25)),
    train_cfg=dict(pts=dict(
        _delete_=True, pos_weight=1.0, neg_weight=2.0, code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2])),
    test_cfg=dict(pts=dict(_delete_=True, score_threshold=0.1, pre_max_size=1000, post_max_size=83, nms_thr=0.2)))
