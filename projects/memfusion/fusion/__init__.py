"""Camera-LiDAR fusion: FuTr, FuTr++, FastBEV, BEVFormer-Lite, PETRv2, and the base of what goes into slot `fusion_layer`."""

from .bevformer_lite import BEVFormerLiteFusion
from .fast_bev import FastBEVFusion
from .fusion_layer import FusionLayer, FusionOutput, FusionTruth
from .futr import FuTr
from .futr_plus_plus import FuTrPlusPlus
from .petrv2_fusion import PETRv2Fusion

__all__ = ['BEVFormerLiteFusion', 'FastBEVFusion', 'FuTr', 'FuTrPlusPlus', 'FusionLayer', 'FusionOutput', 'FusionTruth',
           'PETRv2Fusion']
