"""Query detectors: heads that ask images and BEV by queries, and the parts that they share."""

from .cmt_head import CMTHead
from .petrv2_head import PETRv2
from .query_head import QueryHead
from .query_outputs import Decoded, QueryOutputs
from .sparsebev_head import SparseBEVHead
from .streampetr_head import StreamPETR

__all__ = ['CMTHead', 'Decoded', 'PETRv2', 'QueryHead', 'QueryOutputs', 'SparseBEVHead', 'StreamPETR']
