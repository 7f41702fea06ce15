"""Converter. In: names and weights of SparseBEV's head. Out: the same under the names of our SparseBEVHead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_LAYER = re.compile(r'pts_bbox_head\.transformer\.decoder\.decoder_layer\.(.+)')
_SAME = re.compile(r'(position_encoder\.[0134]\.(?:weight|bias)|self_attn\.gen_tau\.(?:weight|bias)'
                   r'|sampling\.(?:sampling_offset|scale_weights)\.(?:weight|bias)'
                   r'|mixing\.(?:parameter_generator|out_proj)\.(?:weight|bias)'
                   r'|(?:cls|reg)_branch\.\d+\.(?:weight|bias))')
_RENAMED = (
    (re.compile(r'self_attn\.attention\.attn\.(in_proj_weight|in_proj_bias|out_proj\.(?:weight|bias))'),
     r'self_attn.attention.\1'),
    (re.compile(r'ffn\.layers\.0\.0\.(weight|bias)'), r'ffn.expand.\1'),
    (re.compile(r'ffn\.layers\.1\.(weight|bias)'), r'ffn.reduce.\1'),
)
_NORM = re.compile(r'norm([123])\.(weight|bias)')
_HEAD = {'pts_bbox_head.init_query_bbox.weight': 'pts_bbox_head.first_boxes',
         'pts_bbox_head.label_enc.weight': 'pts_bbox_head.class_features.weight'}
NO_USE = (r'pts_bbox_head\.code_weights',)
"""Patterns of official names that have no use here: weights of the loss, which the config says."""


def our_names(official: Iterable[str]) -> dict[str, str | None]:
    """Official name of an entry of the head, with pts_bbox_head in front -> ours; None for what has no use here.

    Raises:
        ValueError: listing the names that are not of this head.
    """
    names = list(official)
    found = {name: _our_name(name) for name in names if not any(re.fullmatch(pattern, name) for pattern in NO_USE)}
    unknown = [name for name, ours in found.items() if ours is None]
    if unknown:
        raise ValueError(f'{len(unknown)} entries that the head of SparseBEV does not have: {", ".join(unknown[:4])}'
                         f'{", ..." if len(unknown) > 4 else ""}')
    return {name: found.get(name) for name in names}


def convert(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries of an official head -> ours; raises ValueError as our_names."""
    return {ours: weights[name] for name, ours in our_names(weights).items() if ours is not None}


def _our_name(name: str) -> str | None:
    if name in _HEAD:
        return _HEAD[name]
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return None
    ours = None
    if _SAME.fullmatch(layer[1]):
        ours = layer[1]
    elif match := _NORM.fullmatch(layer[1]):
        ours = f'norms.{int(match[1]) - 1}.{match[2]}'
    for pattern, renamed in _RENAMED:
        if match := pattern.fullmatch(layer[1]):
            ours = match.expand(renamed)
    return None if ours is None else f'pts_bbox_head.decoder.decoder_layer.{ours}'
