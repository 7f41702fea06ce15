"""Heads that mmdet3d lacks."""

from .anchor_head import SyncAnchor3DHead
from .anchor_multi import AnchorHeadMulti
from .bev_seg_head import BEVSegHead
from .center_head import InitCenterHead
from .forecast_head import ForecastHead
from .image_center_head import ImageCenterHead
from .image_seg_head import ImageSegHead
from .max_iou_assigner import AllBoxesMax3DIoUAssigner
from .scene_heads import SceneHead, scene_head
from .task_head import TaskHead

__all__ = [
    'AllBoxesMax3DIoUAssigner', 'AnchorHeadMulti', 'BEVSegHead', 'ForecastHead', 'ImageCenterHead', 'ImageSegHead',
    'InitCenterHead', 'SceneHead', 'SyncAnchor3DHead', 'TaskHead', 'scene_head',
]
