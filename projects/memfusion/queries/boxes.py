"""Queries. In: codes (..., 10) of boxes. Out: boxes (..., 9) in the augmented LiDAR frame, bottom centres; and back.

A code is a gravity centre in metres and the logarithms of the sizes in an order of the design's own, then sine and cosine of
the heading and the velocity. Sizes: l along the heading, w across, h up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

HEADINGS = ('ccw', 'mmdet3d-0.x')
CODE_SIZE = 10
_BOX = ('x', 'y', 'z', 'l', 'w', 'h')
"""Order of the first six numbers of LiDARInstance3DBoxes."""


@dataclass(frozen=True)
class BoxCode:
    """The numbers that a query head regresses.

    Attributes:
        order: names of the first six, apart by spaces; those of the centre are metres, those of the sizes logarithms.
        heading: 'ccw', radians counter-clockwise from +x, as mmdet3d since 1.0; 'mmdet3d-0.x', its negative minus pi / 2, as
            before, which older official weights say.

    Raises:
        ValueError: for an order that is not x, y, z, l, w, h once each, or another heading.
    """

    order: str = 'x y z l w h'
    heading: str = 'ccw'

    def __post_init__(self) -> None:
        if sorted(self.order.split()) != sorted(_BOX):
            raise ValueError(f'order must hold {" ".join(_BOX)} once each, got {self.order!r}')
        if self.heading not in HEADINGS:
            raise ValueError(f'heading must be one of {", ".join(HEADINGS)}, got {self.heading!r}')

    @cached_property
    def columns(self) -> dict[str, int]:
        """Name -> place in the code."""
        return {name: place for place, name in enumerate((*self.order.split(), 'sin', 'cos', 'vx', 'vy'))}

    @property
    def centre_columns(self) -> list[int]:
        """Places of x, y and z."""
        return [self.columns[name] for name in 'xyz']

    def encode(self, boxes: Tensor) -> Tensor:
        """(..., 7 or 9) boxes with bottom centres -> (..., 10); velocities are NaN where the boxes have none."""
        x, y, bottom, length, width, height, yaw = boxes[..., :7].unbind(-1)
        named = dict(x=x, y=y, z=bottom + height / 2, l=length.log(), w=width.log(), h=height.log())
        yaw = self._turned(yaw)
        velocity = boxes[..., 7:9] if boxes.shape[-1] >= 9 else torch.full_like(boxes[..., :2], torch.nan)
        numbers = [named[name] for name in self.order.split()] + [yaw.sin(), yaw.cos()]
        return torch.cat([torch.stack(numbers, dim=-1), velocity], dim=-1)

    def decode(self, code: Tensor) -> Tensor:
        """(..., 10) -> (..., 9) boxes with bottom centres."""
        x, y, z, length, width, height = (code[..., self.columns[name]] for name in _BOX)
        length, width, height = length.exp(), width.exp(), height.exp()
        yaw = self._turned(torch.atan2(code[..., 6], code[..., 7]))
        return torch.cat([torch.stack([x, y, z - height / 2, length, width, height, yaw], dim=-1), code[..., 8:10]], dim=-1)

    def poses(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 10) -> gravity centres (..., 3), metres, and headings (...), radians counter-clockwise from +x."""
        return code[..., self.centre_columns], self._turned(torch.atan2(code[..., 6], code[..., 7]))

    def _turned(self, yaw: Tensor) -> Tensor:
        """From one convention of headings to the other; its own inverse."""
        return yaw if self.heading == 'ccw' else -yaw - math.pi / 2


@dataclass(frozen=True)
class DecodeSettings:
    """Which boxes a query head says.

    Attributes:
        post_center_range: (x_min, y_min, z_min, x_max, y_max, z_max) of the gravity centres that are kept, metres.
        max_num: how many at most, best scores first; a query may be two boxes of two classes.
        score_threshold: boxes score more.
    """

    post_center_range: Sequence[float]
    max_num: int = 300
    score_threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.max_num < 1 or not 0 <= self.score_threshold < 1:
            raise ValueError('max_num must be at least 1 and score_threshold in 0..1, got '
                             f'{self.max_num} and {self.score_threshold}')
        if len(self.post_center_range) != 6:
            raise ValueError(f'post_center_range must be x, y, z low and then high, got {list(self.post_center_range)}')


class FoundBoxes(NamedTuple):
    """n boxes (n, 9) with bottom centres, scores (n,) falling, labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def decode_top(logits: Tensor, boxes: Tensor, settings: DecodeSettings, there: Tensor | None = None) -> list[FoundBoxes]:
    """The best boxes of every sample, without NMS (DETR3D, Wang et al., CoRL 2021).

    Args:
        logits: (B, Q, K).
        boxes: (B, Q, 9), bottom centres.
        settings: as there.
        there: (B, Q) bool, queries that count; None is all.
    """
    num_classes = logits.shape[-1]
    scores = logits.sigmoid()
    scores = (scores if there is None else scores * there[..., None]).flatten(1)
    scores, places = scores.topk(min(settings.max_num, scores.shape[1]), dim=1)
    boxes = boxes.gather(1, (places // num_classes)[..., None].expand(-1, -1, boxes.shape[-1]))
    centres = torch.cat([boxes[..., :2], boxes[..., 2:3] + boxes[..., 5:6] / 2], dim=-1)
    low, high = boxes.new_tensor(settings.post_center_range[:3]), boxes.new_tensor(settings.post_center_range[3:])
    kept = ((centres >= low) & (centres <= high)).all(-1) & (scores > settings.score_threshold)
    return [FoundBoxes(*(part[keep] for part in parts))
            for *parts, keep in zip(boxes, scores, places % num_classes, kept)]
