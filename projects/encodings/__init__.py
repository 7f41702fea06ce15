"""Encodings of positions, poses and cameras for attention. In: heads, views. Out: heads. Needs torch only."""

from .attend import attention
from .build import build_encoding
from .views import Views

__all__ = ['Views', 'attention', 'build_encoding']
