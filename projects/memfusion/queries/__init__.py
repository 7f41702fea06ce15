"""Query detectors: heads that ask images and BEV by queries, and the parts that they share."""

from .cmt_head import CMTHead
from .query_head import Decoded, QueryHead, QueryOutputs
from .sparsebev_head import SparseBEVHead

__all__ = ['CMTHead', 'Decoded', 'QueryHead', 'QueryOutputs', 'SparseBEVHead']
