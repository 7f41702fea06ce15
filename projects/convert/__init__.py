"""Converter. In: a checkpoint of another code base. Out: a checkpoint of ours with the same weights."""

from .converter import CONVERTERS, convert_checkpoint

__all__ = ['CONVERTERS', 'convert_checkpoint']
