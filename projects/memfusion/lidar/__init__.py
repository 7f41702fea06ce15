"""LiDAR parts that mmdet3d lacks."""

from .pillar_scatter import BatchedPillarsScatter
from .sparse_encoder import PortableSparseEncoder

__all__ = ['BatchedPillarsScatter', 'PortableSparseEncoder']
