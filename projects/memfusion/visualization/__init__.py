"""Pictures: boxes, points, cameras, gates and memories drawn to RGB arrays and PNG files."""

from .bev import draw_bev
from .box_set import BoxSet
from .cameras import draw_cameras, draw_lidar_on_cameras
from .gate import draw_gate
from .image_files import write_png, write_strip
from .memory import StoredFrame, draw_attention, mark_cell
from .memory_usage import MemoryUsage, draw_memory_usage

__all__ = [
    'BoxSet', 'MemoryUsage', 'StoredFrame', 'draw_attention', 'draw_bev', 'draw_cameras', 'draw_gate',
    'draw_lidar_on_cameras', 'draw_memory_usage', 'mark_cell', 'write_png', 'write_strip',
]
