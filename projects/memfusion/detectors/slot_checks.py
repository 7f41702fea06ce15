"""Config, no network. In: a detector's sub-configs. Out: nothing, or an error naming the slots that do not go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_single_level(neck: Mapping[str, Any] | None, head: Mapping[str, Any]) -> None:
    """Memory and head work on one BEV map.

    Raises:
        ValueError: for a neck that gives several levels (an FPN), or anchors for several.
    """
    kind = str((neck or {}).get('type'))
    levels = (neck or {}).get('num_outs', 1)
    if levels != 1:
        raise ValueError(f'model.pts_neck is {kind} with num_outs={levels} levels, but memory and head work on one BEV map: '
                         'use model.pts_neck=dict(type=SECONDFPN, ...), which puts the levels into one '
                         '(model.pts_bbox_head.in_channels is then the sum of its out_channels)')
    scales = (head.get('anchor_generator') or {}).get('scales', [1])
    if len(scales) != 1:
        raise ValueError(f'model.pts_bbox_head.anchor_generator.scales={scales} is anchors for {len(scales)} levels, but there '
                         'is one BEV map: leave scales out and give every size of anchor in sizes')
