"""Converter. In: weights of official PETRv2, StreamPETR, SparseBEV and CMT. Out: ours, and the config they are for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from . import cmt, petrv2, sparsebev, streampetr
from .detector_names import IMAGE_SLOTS, LIDAR_SLOTS, Design, design_of, encoder_of

_IMAGE_HEAD = r'img_roi_head\..+'
"""StreamPETR's 2-D head, which helps in training alone; ours (ImageCenterHead) is built otherwise."""
DESIGNS = {design.name: design for design in (
    Design('petrv2', petrv2.convert, petrv2.NO_USE, r'pts_bbox_head\.(adapt_pos3d|fpe)\..+'),
    Design('streampetr', streampetr.convert, (*streampetr.NO_USE, _IMAGE_HEAD), r'pts_bbox_head\.memory_embed\..+'),
    Design('sparsebev', sparsebev.convert, sparsebev.NO_USE, r'pts_bbox_head\.init_query_bbox\.weight'),
    Design('cmt', cmt.convert, cmt.NO_USE, r'pts_bbox_head\.rv_embedding\..+', IMAGE_SLOTS + LIDAR_SLOTS),
)}
CONFIGS = {
    'petrv2': {'v99': 'petrv2-published_v99_320x800_8xb1-cosine-24e_nus-3d'},
    'streampetr': {
        'r50': 'streampetr-published_r50_256x704_8xb2-cosine-24e_nus-3d',
        'r50, 300 queries': 'streampetr-published_r50_256x704_8xb2-cosine-60e_nus-3d',
        'v99': 'streampetr-published_v99_320x800_8xb2-cosine-24e_nus-3d'},
    'sparsebev': {'r50': 'sparsebev-published_r50_fpn_8xb1-cosine-24e_nus-3d'},
    'cmt': {
        'r50': 'cmt-published_r50_320x800_8xb4-cyclic-20e_nus-3d',
        'v99': 'cmt-camera-published_v99_640x1600_8xb2-cyclic-20e_nus-3d'},
}
"""By the image encoder of the checkpoint, and by its learned queries where another number was published beside."""


def convert(design: str, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As Design.convert; where the weights are plainly those of another family, the error says of which."""
    looks_like = design_of(official, DESIGNS)
    if looks_like not in (None, design):
        raise ValueError(f'the entries of {looks_like}: convert it with `tools/convert_checkpoint.py {looks_like}`')
    return DESIGNS[design].convert(official)


def config_of(design: str, official: Mapping[str, Tensor]) -> str:
    """The config in the repository for weights with this image encoder; the first of the design where none is known."""
    configs, encoder = CONFIGS[design], encoder_of(official)
    points = official.get('pts_bbox_head.reference_points.weight')
    found = None if points is None else configs.get(f'{encoder}, {len(points)} queries')
    return f'configs/query/{found or configs.get(encoder or "", next(iter(configs.values())))}.py'
