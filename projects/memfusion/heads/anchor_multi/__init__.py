"""The multi-head anchor head of OpenPCDet's PointPillars on nuScenes. In: BEV features. Out: boxes in the LiDAR frame."""

from .coder import DirectionBins, ResidualBoxCoder
from .head import AnchorHeadMulti

__all__ = ['AnchorHeadMulti', 'DirectionBins', 'ResidualBoxCoder']
