"""Pure geometry on tensors; no network, no mmdet3d."""

from .bev_grid import BEVGrid, cell_positions, move_positions, warp_bev
from .box_raster import pad_rows, rasterize_box_batch, rasterize_boxes
from .calib_noise import fixed_rotation_noise, measure_noise, sample_rigid_noise, whole_rig_noise
from .ego_motion import ego_motion
from .gaussians import centerpoint_radius, cornernet_radius, draw_gaussians
from .homography import crop_homography, flip_homography, resize_homography, rotation_homography
from .precision import full_precision
from .resampling import pool_adaptive, sample_bilinear, window_bounds, window_shares
from .rigid import check_rigid, invert_affine, invert_rigid, transform_points
from .surroundings import Surroundings
from .undistortion import undistort_points, undistorted_intrinsics
from .views import Views

__all__ = [
    'BEVGrid', 'Surroundings', 'Views', 'cell_positions', 'centerpoint_radius', 'check_rigid', 'cornernet_radius',
    'crop_homography', 'draw_gaussians', 'ego_motion', 'fixed_rotation_noise', 'flip_homography', 'full_precision',
    'invert_affine', 'invert_rigid', 'measure_noise', 'move_positions', 'pad_rows', 'pool_adaptive', 'rasterize_box_batch',
    'rasterize_boxes', 'resize_homography', 'rotation_homography', 'sample_bilinear', 'sample_rigid_noise',
    'transform_points', 'undistort_points', 'undistorted_intrinsics', 'warp_bev', 'whole_rig_noise', 'window_bounds',
    'window_shares',
]
