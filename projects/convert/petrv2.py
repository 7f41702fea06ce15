"""Converter. In: names and weights of the published PETRv2 head. Out: the same under the names of our head."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_PREFIX = 'pts_bbox_head.'
_ENTRY = r'\.(weight|bias)'
_DECODER = r'transformer\.decoder\.'
_LAYER = _DECODER + r'layers\.(\d+)\.'
NO_USE = (r'pts_bbox_head\.code_weights',)
"""What the config says here."""
_NAMES = tuple((re.compile(official), ours) for official, ours in (
    (r'input_proj' + _ENTRY, r'input_proj.\1'),
    (r'cls_branches\.(\d+\.\d+)' + _ENTRY, r'cls_branches.\1.\2'),
    (r'reg_branches\.(\d+)\.reg_branch\.0' + _ENTRY, r'reg_branches.\1.shared.0.\2'),
    (r'reg_branches\.(\d+)\.reg_branch\.3' + _ENTRY, r'reg_branches.\1.shared.2.\2'),  # two of theirs are dropout
    (r'reg_branches\.(\d+)\.task_heads\.(\d+\.[02])' + _ENTRY, r'reg_branches.\1.groups.\2.\3'),
    (r'reg_branches\.(\d+\.\d+)' + _ENTRY, r'reg_branches.\1.\2'),
    (r'adapt_pos3d\.([02])' + _ENTRY, r'embedding.sine.layers.\1.\2'),
    (r'position_encoder\.([02])' + _ENTRY, r'embedding.frustum.layers.\1.\2'),
    (r'fpe\.conv_(reduce|expand)' + _ENTRY, r'embedding.gate.\1.\2'),
    (r'reference_points\.weight', 'references.weight'),
    (r'query_embedding\.([02])' + _ENTRY, r'query_embedding.\1.\2'),
    (_LAYER + r'attentions\.0\.attn\.(.+)', r'decoder.layers.\1.self_attn.\2'),
    (_LAYER + r'attentions\.1\.attn\.(.+)', r'decoder.layers.\1.cross_attn.\2'),
    (_LAYER + r'ffns\.0\.layers\.0\.0' + _ENTRY, r'decoder.layers.\1.ffn.expand.\2'),
    (_LAYER + r'ffns\.0\.layers\.1' + _ENTRY, r'decoder.layers.\1.ffn.reduce.\2'),
    (_LAYER + r'norms\.([012])' + _ENTRY, r'decoder.layers.\1.norms.\2.\3'),
    (_DECODER + r'post_norm' + _ENTRY, r'decoder.post_norm.\1'),
))
_SINE, _SINE_OUT = 'adapt_pos3d.0.weight', 'adapt_pos3d.2.weight'


def convert(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries `pts_bbox_head.*` of an official state dict -> ours, the prefix kept; others are left alone.

    Raises:
        ValueError: listing the first entries that the head does not have.
    """
    entries = {name: value for name, value in official.items()
               if name.startswith(_PREFIX) and not any(re.fullmatch(kind, name) for kind in NO_USE)}
    names = {name: _our_name(name.removeprefix(_PREFIX)) for name in entries}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise ValueError(f'{len(unknown)} entries that the head of PETRv2 does not have: {", ".join(unknown[:4])}'
                         f'{", ..." if len(unknown) > 4 else ""}')
    converted = {f'{_PREFIX}{names[name]}': _as_linear(value) for name, value in entries.items()}
    _sort_sine(official, converted)
    return converted


def _our_name(name: str) -> str | None:
    return next((match.expand(ours) for pattern, ours in _NAMES if (match := pattern.fullmatch(name))), None)


def _as_linear(value: Tensor) -> Tensor:
    """A 1 x 1 convolution's weight is a linear layer's."""
    return value.flatten(1) if value.dim() == 4 else value


def _sort_sine(official: Mapping[str, Tensor], converted: dict[str, Tensor]) -> None:
    """With an axis of views, each axis has all its sines and then all its cosines; ours take turns, as theirs do without it."""
    weight, last = official.get(_PREFIX + _SINE), official.get(_PREFIX + _SINE_OUT)
    if weight is None or last is None or 2 * weight.shape[1] != 3 * last.shape[0]:
        return
    ours = converted[f'{_PREFIX}{_our_name(_SINE)}']
    converted[f'{_PREFIX}{_our_name(_SINE)}'] = ours.unflatten(1, (3, 2, -1)).transpose(2, 3).flatten(1)
