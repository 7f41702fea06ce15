# mmdet3d's config of the same name: Anchor3DHead on PointPillars with an FPN.
_base_ = [
    'mmdet3d::_base_/models/pointpillars_hv_fpn_nus.py', '../_base_/datasets/nus_frame_anchor.py',
    'mmdet3d::_base_/schedules/schedule-2x.py', '../_base_/default_runtime.py'
]
