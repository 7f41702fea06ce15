"""OpenPCDet's settings of a multi-head PointPillars in, configs of our detector and head out. Sizes are the file's own."""

from __future__ import annotations

from typing import Any

NORM = dict(eps=1e-3, momentum=0.01)
BRANCH_NORM = dict(type='BN', eps=1e-5, momentum=0.1)


def detector_config(settings: dict[str, Any]) -> dict[str, Any]:
    """A TemporalFusionDetector without memory, for the sections `model` and grid."""
    model = settings['model']
    vfe, backbone, dense = model['VFE'], model['BACKBONE_2D'], model['DENSE_HEAD']
    expect(model, NAME='PointPillar')
    expect(vfe, NAME='PillarVFE', USE_ABSLOTE_XYZ=True, USE_NORM=True)
    strides = {row['feature_map_stride'] for row in dense['ANCHOR_GENERATOR_CONFIG']}
    if len(strides) != 1:
        raise ValueError(f'feature_map_stride: one for all classes is needed, got {sorted(strides)}')
    channels = sum(backbone['NUM_UPSAMPLE_FILTERS'])
    head = head_config(dense, dense['ANCHOR_GENERATOR_CONFIG'], settings['class_names'], channels)
    return dict(
        type='TemporalFusionDetector',
        grid=dict(point_cloud_range=settings['point_cloud_range'], voxel_size=settings['voxel_size'],
                  out_size_factor=strides.pop()),
        data_preprocessor=dict(
            type='ClipDataPreprocessor', voxel=True,
            voxel_layer=dict(max_num_points=settings['max_points_per_voxel'], max_voxels=(settings['max_voxels'],) * 2)),
        pts_voxel_encoder=dict(
            type='PillarFeatureNet', in_channels=5, feat_channels=vfe['NUM_FILTERS'], with_distance=vfe['WITH_DISTANCE'],
            legacy=False, norm_cfg=dict(type='BN1d', **NORM)),
        pts_middle_encoder=dict(type='PointPillarsScatter', in_channels=model['MAP_TO_BEV']['NUM_BEV_FEATURES']),
        pts_backbone=dict(
            type='SECOND', in_channels=model['MAP_TO_BEV']['NUM_BEV_FEATURES'], out_channels=backbone['NUM_FILTERS'],
            layer_nums=backbone['LAYER_NUMS'], layer_strides=backbone['LAYER_STRIDES'], norm_cfg=dict(type='BN', **NORM),
            conv_cfg=dict(type='Conv2d', bias=False)),
        pts_neck=dict(
            type='SECONDFPN', in_channels=backbone['NUM_FILTERS'], out_channels=backbone['NUM_UPSAMPLE_FILTERS'],
            upsample_strides=[int(s) if s >= 1 else s for s in backbone['UPSAMPLE_STRIDES']], norm_cfg=dict(type='BN', **NORM),
            upsample_cfg=dict(type='deconv', bias=False),
            use_conv_for_no_stride=backbone.get('USE_CONV_FOR_NO_STRIDE', False)),
        pts_bbox_head=head,
        train_cfg=dict(pts=train_config(dense)),
        test_cfg=dict(pts=test_config(model['POST_PROCESSING'])))


def head_config(dense: dict[str, Any], anchors: list[dict[str, Any]], class_names: list[str],
                in_channels: int) -> dict[str, Any]:
    """AnchorHeadMulti; range and BEV shape come from the grid."""
    expect(dense, NAME='AnchorHeadMulti', CLASS_AGNOSTIC=False, USE_MULTIHEAD=True, SEPARATE_MULTIHEAD=True)
    assigner, separate, weights = (dense['TARGET_ASSIGNER_CONFIG'], dense['SEPARATE_REG_CONFIG'],
                                   dense['LOSS_CONFIG']['LOSS_WEIGHTS'])
    expect(assigner, NAME='AxisAlignedTargetAssigner', NORM_BY_NUM_EXAMPLES=False, MATCH_HEIGHT=False,
           BOX_CODER='ResidualCoder')
    if assigner['POS_FRACTION'] >= 0:
        raise ValueError(f'POS_FRACTION={assigner["POS_FRACTION"]}: sampling anchors is not part of the published head')
    groups = [row['HEAD_CLS_NAME'] for row in dense['RPN_HEAD_CFGS']]
    if [name for group in groups for name in group] != list(class_names):
        raise ValueError(f'the groups {groups} do not list the classes {class_names} in order')
    coder = assigner['BOX_CODER_CONFIG']
    head = dict(
        type='AnchorHeadMulti', in_channels=in_channels, tasks=[dict(class_names=group) for group in groups],
        anchors={row['class_name']: dict(
            sizes_m=row['anchor_sizes'], bottom_heights_m=row['anchor_bottom_heights'], rotations_rad=row['anchor_rotations'],
            align_center=row.get('align_center', False), pos_iou_thr=row['matched_threshold'],
            neg_iou_thr=row['unmatched_threshold'])
            for row in anchors},
        bbox_coder=dict(type='ResidualBoxCoder', sincos_yaw=coder.get('encode_angle_by_sincos', False),
                        velocity=coder['code_size'] == 9),
        shared_channels=dense['SHARED_CONV_NUM_FILTER'], norm_cfg=dict(type='BN', **NORM),
        branches=dict(
            numbers={name: int(count) for name, count in (row.split(':') for row in separate['REG_LIST'])},
            channels=separate['NUM_MIDDLE_FILTER'], num_convs=separate['NUM_MIDDLE_CONV'], norm_cfg=BRANCH_NORM),
        loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=weights['cls_weight']),
        loss_bbox=dict(**_box_loss(dense['LOSS_CONFIG']), loss_weight=weights['loc_weight']))
    if dense.get('USE_DIRECTION_CLASSIFIER', False):
        head['direction'] = dict(offset_rad=dense['DIR_OFFSET'], limit_offset=dense['DIR_LIMIT_OFFSET'],
                                 num_bins=dense['NUM_DIR_BINS'])
        head['loss_dir'] = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=weights['dir_weight'])
    return head


def train_config(dense: dict[str, Any]) -> dict[str, Any]:
    weights = dense['LOSS_CONFIG']['LOSS_WEIGHTS']
    return dict(pos_weight=weights.get('pos_cls_weight', 1.0), neg_weight=weights.get('neg_cls_weight', 1.0),
                code_weights=weights['code_weights'])


def test_config(section: dict[str, Any]) -> dict[str, Any]:
    nms = section['NMS_CONFIG']
    expect(section, OUTPUT_RAW_SCORE=False)
    expect(nms, MULTI_CLASSES_NMS=True, NMS_TYPE='nms_gpu')
    return dict(score_threshold=section['SCORE_THRESH'], nms_thr=nms['NMS_THRESH'], pre_max_size=nms['NMS_PRE_MAXSIZE'],
                post_max_size=nms['NMS_POST_MAXSIZE'])


def _box_loss(section: dict[str, Any]) -> dict[str, Any]:
    kind = section.get('REG_LOSS_TYPE', 'WeightedSmoothL1Loss')
    losses = {'WeightedSmoothL1Loss': dict(type='mmdet.SmoothL1Loss', beta=1 / 9), 'WeightedL1Loss': dict(type='mmdet.L1Loss')}
    if kind not in losses:
        raise ValueError(f'REG_LOSS_TYPE={kind!r}: known are {sorted(losses)}')
    return losses[kind]


def expect(section: dict[str, Any], **values: Any) -> None:
    """Raises ValueError where a section says something that this detector does not do."""
    for key, value in values.items():
        if section.get(key, value) != value:
            raise ValueError(f'{key}={section[key]!r}: only {value!r} can be replayed')
