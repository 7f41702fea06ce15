"""Camera-LiDAR fusion: FuTr and FuTr++, and the base of what goes into the detector's slot `fusion_layer`."""

from .fusion_layer import FusionLayer, FusionOutput, FusionTruth
from .futr import FuTr
from .futr_plus_plus import FuTrPlusPlus

__all__ = ['FuTr', 'FuTrPlusPlus', 'FusionLayer', 'FusionOutput', 'FusionTruth']
