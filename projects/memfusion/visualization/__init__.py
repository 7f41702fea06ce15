"""Pictures: boxes, points, cameras and gates drawn to RGB arrays and PNG files."""

from .bev import draw_bev
from .box_set import BoxSet
from .cameras import draw_cameras, draw_lidar_on_cameras
from .gate import draw_gate
from .image_files import write_png, write_strip

__all__ = ['BoxSet', 'draw_bev', 'draw_cameras', 'draw_gate', 'draw_lidar_on_cameras', 'write_png', 'write_strip']
