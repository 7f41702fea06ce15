"""Metric. In: a data sample as a dict. Out: the fields that camera metrics read, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projects.memfusion.structures.image_labels import ImageLabels

LABELS = 'gt_img_labels'


def is_dropped(sample: Mapping[str, Any]) -> bool:
    """Whether the frame could not be loaded (`on_bad_frame='drop'`): it has neither labels nor predictions."""
    return not sample.get('frame_valid', True)


def read_field(sample: Mapping[str, Any], name: str, remedy: str) -> Any:
    """A field of the sample; ValueError names sample and field where it is not there, and says what to do."""
    if sample.get(name) is None:
        raise ValueError(f'{describe(sample)} has no {name}: {remedy}')
    return sample[name]


def read_labels(sample: Mapping[str, Any]) -> tuple[ImageLabels, ...]:
    """`gt_img_labels`, network pixels, one for each camera."""
    return tuple(read_field(sample, LABELS, 'put LoadImageLabels (or ProjectImageBoxes and ProjectLidarsegLabels) before '
                            'PackClipFrame in the test pipeline too'))


def describe(sample: Mapping[str, Any]) -> str:
    """How messages name a sample."""
    return f'sample {sample.get("sample_token", sample.get("sample_idx"))}'
