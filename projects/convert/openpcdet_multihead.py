"""Converter. In: names and weights of OpenPCDet's multi-head PointPillars. Out: the same under our detector's names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from .detector_names import matches_any

_NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_GROUP = r'dense_head\.rpn_heads\.(\d+)\.'
_BRANCH = re.compile(_GROUP + r'(conv_cls|conv_box\.conv_(\w+?))\.(\d+)\.(\w+)')
_PLAIN = (
    (re.compile(r'vfe\.(pfn_layers\.\d+\.(?:linear\.\w+|norm\.' + _NORM + '))'), r'pts_voxel_encoder.\1'),
    (re.compile(r'backbone_2d\.(deblocks\.\d+\.\d+\.\w+)'), r'pts_neck.\1'),
    (re.compile(r'dense_head\.shared_conv\.0\.(weight)'), r'pts_bbox_head.shared_conv.conv.\1'),
    (re.compile(r'dense_head\.shared_conv\.1\.' + _NORM), r'pts_bbox_head.shared_conv.bn.\1'),
    (re.compile(_GROUP + r'conv_dir_cls\.(weight|bias)'), r'pts_bbox_head.group_heads.\1.direction.\2'),
)
_BLOCK = re.compile(r'backbone_2d\.blocks\.(\d+)\.(\d+)\.(\w+)')
_LABELS = re.compile(_GROUP + 'head_label_indices')
NO_USE = ('global_step', _LABELS.pattern)
"""The first counts training steps; the second says which classes a group has, which the config says here."""


def our_names(official: Iterable[str]) -> dict[str, str | None]:
    """Official name -> ours; None for the entries of NO_USE.

    Raises:
        ValueError: listing the names that are not of this network.
    """
    names = list(official)
    layers = {match.group(1, 2, 4) for match in filter(None, map(_BRANCH.fullmatch, names))}
    found = {name: _our_name(name, layers) for name in names if not matches_any(NO_USE, name)}
    unknown = [name for name, ours in found.items() if ours is None]
    if unknown:
        raise ValueError(f'{len(unknown)} entries that the multi-head PointPillars does not have: '
                         f'{", ".join(unknown[:4])}{", ..." if len(unknown) > 4 else ""}')
    return {name: found.get(name) for name in names}


def convert(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """An official state dict -> ours.

    Raises:
        ValueError: naming the entries, where one is unknown or the groups do not list the classes in order.
    """
    labels = sorted((int(match[1]), value) for name, value in weights.items() if (match := _LABELS.fullmatch(name)))
    groups = {int(match[1]) for match in map(re.compile(_GROUP).match, weights) if match}
    if nameless := groups - {group for group, _ in labels}:
        raise ValueError(f'no head_label_indices of the groups {sorted(nameless)}: the order of their classes is not known')
    order = [int(label) for _, group in labels for label in group.flatten()]
    if order != list(range(1, len(order) + 1)):
        raise ValueError(f'head_label_indices are {order}: groups that do not list the classes in order cannot be converted')
    return {ours: weights[name] for name, ours in our_names(weights).items() if ours is not None}


def _our_name(name: str, layers: Collection[tuple[str | Any, ...]]) -> str | None:
    """`layers` are (group, branch, number) of all layers that have entries."""
    for pattern, ours in _PLAIN:
        if match := pattern.fullmatch(name):
            return match.expand(ours)
    if match := _BLOCK.fullmatch(name):  # theirs begin with a layer that pads
        return f'pts_backbone.blocks.{match[1]}.{int(match[2]) - 1}.{match[3]}' if int(match[2]) else None
    if match := _BRANCH.fullmatch(name):
        group, branch, regressed, layer, entry = match.groups()
        ours = f'pts_bbox_head.group_heads.{group}.{"cls" if regressed is None else "box." + regressed}'
        step, part = divmod(int(layer), 3)  # convolution, BatchNorm, ReLU
        if part == 0 and (group, branch, str(int(layer) + 1)) not in layers:  # the last one has no BatchNorm
            return f'{ours}.{step}.{entry}'
        return f'{ours}.{step}.{("conv", "bn")[part]}.{entry}' if part < 2 else None
    return None
