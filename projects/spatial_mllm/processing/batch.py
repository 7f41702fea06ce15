"""Spatial: processing. In: examples of several lengths. Out: a batch, padded on either side or packed into one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import FUNCTIONS
from torch import Tensor

from projects.spatial_mllm.model.poses import FramePoses, Scene

from .chat import NO_LABEL
from .position_ids import PADDED

SIDES = ('left', 'right')


@dataclass(frozen=True, eq=False)
class Example:
    """A question of n tokens about a video of S grid steps, or about none.

    Attributes:
        tokens, labels: (n,).
        position_ids: (3, n).
        pixels: (P, C) patch rows; grid: (1, 3); None without a video.
        step_of_token: (n,) grid step of each token, -1 for text.
        poses: of the S steps, relative to the first; geometry: (M, C) packed rows; camera: (S, C).
    """

    tokens: Tensor
    labels: Tensor
    position_ids: Tensor
    step_of_token: Tensor
    pixels: Tensor | None = None
    grid: Tensor | None = None
    poses: FramePoses | None = None
    geometry: Tensor | None = None
    camera: Tensor | None = None


def pad_batch(examples: Sequence[Example], side: str) -> dict[str, Any]:
    """One row each.

    Args:
        examples: one or more.
        side: where padding goes: 'left' to generate, 'right' to train. What stands there is masked, so any token will do.
    """
    if side not in SIDES:
        raise ValueError(f'padding side {side!r}: must be one of {", ".join(SIDES)}')
    length = max(len(example.tokens) for example in examples)
    starts = steps_before(examples)

    def padded(rows: Sequence[Tensor], value: int) -> Tensor:
        gaps = [length - row.shape[-1] for row in rows]
        return torch.stack([F.pad(row, (gap, 0) if side == 'left' else (0, gap), value=value) for row, gap in zip(rows, gaps)])

    steps = [torch.where(example.step_of_token < 0, -1, example.step_of_token + start)
             for example, start in zip(examples, starts)]
    return dict(
        input_ids=padded([example.tokens for example in examples], 0),
        attention_mask=padded([torch.ones_like(example.tokens) for example in examples], 0),
        position_ids=padded([example.position_ids for example in examples], PADDED).transpose(0, 1),
        labels=padded([example.labels for example in examples], NO_LABEL),
        **joined(examples, padded(steps, -1)))


def pack_batch(examples: Sequence[Example]) -> dict[str, Any]:
    """All in one row (1, sum of n), which reads no other than itself: position ids (4, 1, n) begin with the places in each."""
    places = [torch.cat([torch.arange(len(example.tokens))[None], example.position_ids]) for example in examples]
    steps = [torch.where(example.step_of_token < 0, -1, example.step_of_token + start)
             for example, start in zip(examples, steps_before(examples))]
    labels = [torch.cat([torch.tensor([NO_LABEL]), example.labels[1:]]) for example in examples]
    return dict(input_ids=torch.cat([example.tokens for example in examples])[None], attention_mask=None,
                position_ids=torch.cat(places, dim=1)[:, None], labels=torch.cat(labels)[None],
                **joined(examples, torch.cat(steps)[None]))


def steps_before(examples: Sequence[Example]) -> list[int]:
    """Grid steps of all examples before each."""
    counts = [0 if example.grid is None else int(example.grid[:, 0].sum()) for example in examples]
    return [sum(counts[:number]) for number in range(len(counts))]


def joined(examples: Sequence[Example], step_of_token: Tensor) -> dict[str, Any]:
    """Pixels, grids and the scene of all videos of a batch.

    Raises:
        ValueError: some videos have poses or geometry, and others none.
    """
    seen = [example for example in examples if example.pixels is not None]
    if not seen:
        return dict(pixel_values_videos=None, video_grid_thw=None, scene=None)
    parts: dict[str, Any] = {}
    for field in fields(Example)[-3:]:
        values = [getattr(example, field.name) for example in seen]
        missing = [value is None for value in values]
        if any(missing) and not all(missing):
            raise ValueError(f'{missing.count(True)} of the {len(seen)} videos of a batch have no {field.name}, the others do')
        parts[field.name] = None if all(missing) else join_poses(values) if field.name == 'poses' else torch.cat(values)
    return dict(pixel_values_videos=torch.cat([example.pixels for example in seen if example.pixels is not None]),
                video_grid_thw=torch.cat([example.grid for example in seen if example.grid is not None]),
                scene=Scene(step_of_token, **parts))


def join_poses(parts: Sequence[FramePoses]) -> FramePoses:
    """One after the other.

    Raises:
        ValueError: some have K and others none.
    """
    known = [part.img_from_cam for part in parts if part.img_from_cam is not None]
    if len(known) not in (0, len(parts)):
        raise ValueError(f'{len(parts) - len(known)} of the {len(parts)} videos of a batch have no intrinsics, the others do')
    return FramePoses(torch.cat([part.cam_from_world for part in parts]), torch.cat(known) if known else None)


@FUNCTIONS.register_module()
def spatial_collate(items: Sequence[Mapping[str, Any]], side: str = 'right', pack: bool = False) -> dict[str, Any]:
    """Items of SpatialQADataset -> dict(inputs, data_samples); items that could not be read have no example and stay rows."""
    examples = [item['example'] for item in items if item['example'] is not None]
    inputs = None if not examples else pack_batch(examples) if pack else pad_batch(examples, side)
    return dict(inputs=inputs, data_samples=[item['row'] for item in items])
