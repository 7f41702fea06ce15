"""Pure geometry on tensors; no network, no mmdet3d."""

from .bev_grid import BEVGrid, rasterize_boxes
from .rigid import check_rigid, invert_rigid, transform_points

__all__ = ['BEVGrid', 'check_rigid', 'invert_rigid', 'rasterize_boxes', 'transform_points']
