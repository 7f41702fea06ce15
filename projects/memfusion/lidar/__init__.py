"""LiDAR parts that mmdet3d lacks."""

from .sparse_encoder import PortableSparseEncoder

__all__ = ['PortableSparseEncoder']
