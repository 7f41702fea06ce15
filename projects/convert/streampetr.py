"""Converter. In: the head of an official StreamPETR checkpoint. Out: ours, which says StreamPETR with all published quirks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

PREFIX = 'pts_bbox_head.'
NO_USE = (r'pts_bbox_head\.(code_weights|match_costs|pc_range|position_range|coords_d)',)
"""Parameters of the published code that are settings here."""
_PARTS = {
    'position_encoder': 'image_tokens.position_encoder.layers', 'memory_embed': 'image_tokens.memory_embed',
    'featurized_pe.conv_reduce': 'image_tokens.gate.reduce', 'featurized_pe.conv_expand': 'image_tokens.gate.expand',
    'spatial_alignment.reduce.0': 'image_tokens.spatial_alignment.reduce',
    'spatial_alignment': 'image_tokens.spatial_alignment', 'cls_branches.0': 'classify', 'reg_branches.0': 'regress',
    'reference_points': 'references', 'query_embedding': 'position', 'time_embedding': 'time_embedding',
    'ego_pose_pe.reduce.0': 'position_norm.reduce', 'ego_pose_pe': 'position_norm',
    'ego_pose_memory.reduce.0': 'content_norm.reduce', 'ego_pose_memory': 'content_norm',
    'transformer.decoder.post_norm': 'decoder.post_norm'}
_LAYER_PARTS = {'attentions.0.attn': 'self_attn', 'attentions.1.attn': 'cross_attn', 'ffns.0.layers.0.0': 'ffn.expand',
                'ffns.0.layers.1': 'ffn.reduce', 'norms.0': 'norms.0', 'norms.1': 'norms.1', 'norms.2': 'norms.2'}
_LAYER = re.compile(r'transformer\.decoder\.layers\.(\d+)\.(.+)')
_COPY = re.compile(r'(cls|reg)_branches\.(\d+)\.(.+)')


def our_names(official: Iterable[str]) -> dict[str, str | None]:
    """Official names -> ours; None for what has no use here and for the branches of later layers, which are the first's.

    Raises:
        ValueError: naming an entry that is not the head's.
    """
    return {name: _our_name(name) for name in official}


def convert(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's weights, official to ours.

    Raises:
        ValueError: as our_names, and where the branches of two layers differ: one serves all.
    """
    for name, value in official.items():
        copy = _COPY.fullmatch(name.removeprefix(PREFIX))
        if copy and copy[2] != '0':
            first = official.get(f'{PREFIX}{copy[1]}_branches.0.{copy[3]}')
            if first is None or not value.is_meta and not torch.equal(first, value):
                raise ValueError(f'{name}, which is not that of layer 0: one branch serves all layers of StreamPETR')
    return {ours: official[name] for name, ours in our_names(official).items() if ours is not None}


def _our_name(name: str) -> str | None:
    own = name.removeprefix(PREFIX)
    if any(re.fullmatch(pattern, name) for pattern in NO_USE):
        return None
    if own == 'pseudo_reference_points.weight':
        return f'{PREFIX}start_points'
    copy = _COPY.fullmatch(own)
    if copy and copy[2] != '0':
        return None
    layer = _LAYER.fullmatch(own)
    rest, parts, prefix = (layer[2], _LAYER_PARTS, f'decoder.layers.{layer[1]}.') if layer else (own, _PARTS, '')
    known = max((part for part in parts if rest.startswith(part + '.')), key=len, default=None)
    if known is None or not name.startswith(PREFIX):
        raise ValueError(f'{name}, which StreamPETR has not')
    return f'{PREFIX}{prefix}{parts[known]}{rest[len(known):]}'
