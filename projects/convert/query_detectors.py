"""Converter. In: weights of official PETRv2, SparseBEV and CMT. Out: ours, and the config they are for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from . import cmt, petrv2, sparsebev
from .detector_names import IMAGE_SLOTS, LIDAR_SLOTS, Design, design_of, encoder_of

DESIGNS = {design.name: design for design in (
    Design('petrv2', petrv2.convert, petrv2.NO_USE, r'pts_bbox_head\.(adapt_pos3d|fpe)\..+'),
    Design('sparsebev', sparsebev.convert, sparsebev.NO_USE, r'pts_bbox_head\.init_query_bbox\.weight'),
    Design('cmt', cmt.convert, cmt.NO_USE, r'pts_bbox_head\.rv_embedding\..+', IMAGE_SLOTS + LIDAR_SLOTS),
)}
CONFIGS = {
    'petrv2': {'v99': 'petrv2-published_v99_320x800_8xb1-cosine-24e_nus-3d'},
    'sparsebev': {'r50': 'sparsebev-published_r50_fpn_8xb1-cosine-24e_nus-3d'},
    'cmt': {
        'r50': 'cmt-published_r50_320x800_8xb4-cyclic-20e_nus-3d',
        'v99': 'cmt-camera-published_v99_640x1600_8xb2-cyclic-20e_nus-3d'},
}
"""By the image encoder of the checkpoint."""


def convert(design: str, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As Design.convert; where the weights are plainly those of another family, the error says of which."""
    looks_like = design_of(official, DESIGNS)
    if looks_like not in (None, design):
        raise ValueError(f'the entries of {looks_like}: convert it with `tools/convert_checkpoint.py {looks_like}`')
    return DESIGNS[design].convert(official)


def config_of(design: str, official: Mapping[str, Tensor]) -> str:
    """The config in the repository for weights with this image encoder; the first of the design where none is known."""
    configs = CONFIGS[design]
    return f'configs/query/{configs.get(encoder_of(official) or "", next(iter(configs.values())))}.py'
