"""Camera-LiDAR fusion: FuTr, FuTr++ and FastBEV, and the base of what goes into the detector's slot `fusion_layer`."""

from .fast_bev import FastBEVFusion
from .fusion_layer import FusionLayer, FusionOutput, FusionTruth
from .futr import FuTr
from .futr_plus_plus import FuTrPlusPlus

__all__ = ['FastBEVFusion', 'FuTr', 'FuTrPlusPlus', 'FusionLayer', 'FusionOutput', 'FusionTruth']
