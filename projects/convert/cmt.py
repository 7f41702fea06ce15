"""Converter. In: the head's entries of CMT's official checkpoints. Out: the same under CMTHead's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

PREFIX = 'pts_bbox_head.'
NO_USE: tuple[str, ...] = ()
"""Official names that have no use here: none."""
_NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_PROJECTION = r'(in_proj_(?:weight|bias)|out_proj\.(?:weight|bias))'
_LAYER = r'transformer\.decoder\.(layers\.\d+\.)'
_RENAMED = (
    (re.compile(_LAYER + r'attentions\.0\.attn\.' + _PROJECTION), r'decoder.\1self_attn.\2'),
    (re.compile(_LAYER + r'attentions\.1\.attn\.' + _PROJECTION), r'decoder.\1cross_attn.\2'),
    (re.compile(_LAYER + r'ffns\.0\.layers\.0\.0\.(weight|bias)'), r'decoder.\1ffn.expand.\2'),
    (re.compile(_LAYER + r'ffns\.0\.layers\.1\.(weight|bias)'), r'decoder.\1ffn.reduce.\2'),
    (re.compile(_LAYER + r'(norms\.[012]\.(?:weight|bias))'), r'decoder.\1\2'),
    (re.compile(r'transformer\.decoder\.(post_norm\.(?:weight|bias))'), r'decoder.\1'),
    (re.compile(r'task_heads\.0\.((?:center|height|dim|rot|vel|cls_logits)\.[013]\.(?:weight|bias))'), r'task_heads.\1'),
    (re.compile(r'(reference_points\.weight)'), r'\1'),
    (re.compile(r'((?:bev|rv)_embedding\.[02]\.(?:weight|bias))'), r'\1'),
    (re.compile(r'(shared_conv\.conv\.weight)'), r'\1'),
    (re.compile(r'(shared_conv\.bn\.' + _NORM + ')'), r'\1'),
)


def convert(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries `pts_bbox_head.*` of an official state dict -> ours, of any size.

    Raises:
        ValueError: naming entries that the head does not have, e.g. those of a second task.
    """
    names = {name: _our_name(name) for name in official}
    unknown = [name for name, ours in names.items() if ours is None]
    if unknown:
        raise ValueError(f"{len(unknown)} entries that CMT's head does not have: {', '.join(unknown[:4])}"
                         f"{', ...' if len(unknown) > 4 else ''}")
    return {ours: official[name] for name, ours in names.items() if ours is not None}


def _our_name(name: str) -> str | None:
    inner = name.removeprefix(PREFIX)
    for pattern, ours in _RENAMED:
        if inner != name and (match := pattern.fullmatch(inner)):
            return PREFIX + match.expand(ours)
    return None
