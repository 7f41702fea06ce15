"""Detectors: the stages put together."""

from .temporal_fusion_detector import TemporalFusionDetector

__all__ = ['TemporalFusionDetector']
