"""Pictures: boxes, points, cameras, gates, queries and memories drawn to RGB arrays and PNG files."""

from .bev import draw_bev
from .box_set import BoxSet
from .cameras import draw_cameras, draw_lidar_on_cameras
from .futures import FutureSet, draw_futures, draw_futures_camera
from .gate import draw_gate
from .image_files import write_png, write_strip
from .memory import StoredFrame, draw_attention, mark_cell
from .memory_usage import MemoryUsage, draw_memory_usage
from .queries import draw_queries, draw_query_cameras
from .query_attention import draw_query_attention
from .query_record import QueryRecord, QueryRecorder, records_queries

__all__ = [
    'BoxSet', 'FutureSet', 'MemoryUsage', 'QueryRecord', 'QueryRecorder', 'StoredFrame', 'draw_attention', 'draw_bev',
    'draw_cameras', 'draw_futures', 'draw_futures_camera', 'draw_gate', 'draw_lidar_on_cameras', 'draw_memory_usage',
    'draw_queries', 'draw_query_attention', 'draw_query_cameras', 'mark_cell', 'records_queries', 'write_png', 'write_strip',
]
