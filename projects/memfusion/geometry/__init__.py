"""Pure geometry on tensors; no network, no mmdet3d."""

from .bev_grid import BEVGrid, cell_positions, move_positions, rasterize_boxes, warp_bev
from .ego_motion import ego_motion
from .rigid import check_rigid, invert_rigid, transform_points

__all__ = [
    'BEVGrid', 'cell_positions', 'check_rigid', 'ego_motion', 'invert_rigid', 'move_positions', 'rasterize_boxes',
    'transform_points', 'warp_bev',
]
