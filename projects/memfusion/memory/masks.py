"""Masks that are written to memory. In: boxes or probabilities. Out: (B, K, Hm, Wm) masks in 0..1, current BEV frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry import BEVGrid, rasterize_boxes

SOURCES = ('truth', 'detections', 'previous_detections', 'occupancy', 'none')


@dataclass
class MaskPolicy:
    """Which mask a frame is written with.

    Attributes:
        source: 'truth' (the true boxes; only training has them), 'detections' or 'previous_detections' (the head's boxes of
            this or the last frame), 'occupancy' (what memory itself predicts), 'none' (zeros).
        score_threshold: detections that score less are left out.
        teacher_forcing: probability, in training, that a clip's frame is written with the truth instead; a hook ramps it.
        block_dropout: probability, in training, that a block of a mask is emptied.
        block_cells: side of such a block, in memory cells.
        num_agents: K. With more than one, the K - 1 first masks follow one agent each and the last holds all others.
        match_m: how far, in metres, an agent's box may be from where it was last.
        keep_s: how long an agent that is not found keeps its place, seconds.
    """

    source: str = 'occupancy'
    score_threshold: float = 0.3
    teacher_forcing: float = 0.0
    block_dropout: float = 0.0
    block_cells: int = 4
    num_agents: int = 1
    match_m: float = 4.0
    keep_s: float = 2.0

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f'temporal.mask_source must be one of {SOURCES}, got {self.source!r}')
        for name in ('score_threshold', 'teacher_forcing', 'block_dropout'):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f'temporal.masks.{name} must lie in 0..1, got {getattr(self, name)}')
        if self.num_agents < 1 or self.block_cells < 1:
            raise ValueError(f'temporal.masks.num_agents and block_cells must be at least 1, got {self.num_agents} and '
                             f'{self.block_cells}')
        if self.num_agents > 1 and self.source in ('occupancy', 'none'):
            raise ValueError(f'temporal.masks.num_agents={self.num_agents} needs boxes that say who is who: set '
                             "mask_source to 'detections', 'previous_detections' or 'truth'")

    @property
    def needs_boxes(self) -> bool:
        """Whether the head's boxes are wanted."""
        return self.source in ('detections', 'previous_detections')


def boxes_to_masks(boxes: Sequence[Tensor], owners: Sequence[Tensor], num_agents: int,
                   point_cloud_range: Sequence[float], map_shape: Sequence[int]) -> Tensor:
    """Boxes B x (n, 7+), their agents B x (n,) int64 in 0..K-1 -> (B, K, Hm, Wm) float masks."""
    height, width = map_shape
    x_min, y_min, z_min, x_max, y_max, z_max = point_cloud_range
    grid = BEVGrid(tuple(point_cloud_range), ((x_max - x_min) / width, (y_max - y_min) / height, z_max - z_min), 1)
    masks = [torch.stack([rasterize_boxes(sample[owner == k][:, :7], grid) for k in range(num_agents)])
             for sample, owner in zip(boxes, owners)]
    return torch.stack(masks).float()


def drop_blocks(mask: Tensor, probability: float, block_cells: int) -> Tensor:
    """Empties square blocks of (B, K, Hm, Wm) masks, the same for all agents of a sample."""
    if probability == 0:
        return mask
    height, width = mask.shape[-2:]
    blocks = (-(-height // block_cells), -(-width // block_cells))
    # Drawn on the CPU: its generator is the one that a resumed run restores.
    keep = (torch.rand(mask.shape[0], 1, *blocks) >= probability).to(mask)
    keep = F.interpolate(keep, scale_factor=block_cells, mode='nearest')[..., :height, :width]
    return mask * keep


def assign_agents(boxes: Tensor, global_from_bev: Tensor, position: Tensor, time_s: Tensor, now_s: Tensor,
                  policy: MaskPolicy) -> tuple[Tensor, Tensor, Tensor]:
    """Gives each box of one sample to an agent: greedily to the nearest within `match_m` of where it was last.

    Boxes are taken in order (the head gives them by descending score). One that matches nobody takes a free place, or
    joins the last mask, which holds all others.

    Args:
        boxes: (n, 7+) in the BEV frame.
        global_from_bev: (4, 4) float64.
        position: (K, 2) float64 global metres; time_s: (K,) float64, 0 where a place is free.
        now_s: () float64.

    Returns:
        owners (n,) int64 in 0..K-1, and the new position and time_s.
    """
    position, time_s = position.clone(), time_s.clone()
    last = policy.num_agents - 1
    time_s[now_s - time_s > policy.keep_s] = 0
    homogeneous = torch.cat([boxes[:, :3].double(), boxes.new_ones(len(boxes), 1).double()], dim=1)
    centers = (homogeneous @ global_from_bev.T)[:, :2]
    owners = torch.full((len(boxes),), last, dtype=torch.int64, device=boxes.device)
    was_here, taken = time_s[:last] > 0, torch.zeros(last, dtype=torch.bool, device=boxes.device)
    for index, center in enumerate(centers if last else ()):
        distance = (position[:last] - center).norm(dim=1)
        distance[~was_here | taken] = torch.inf
        nearest = int(distance.argmin())
        if distance[nearest] > policy.match_m:
            free = (~was_here & ~taken).nonzero()
            if not len(free):
                continue
            nearest = int(free[0])
        owners[index], taken[nearest] = nearest, True
        position[nearest], time_s[nearest] = center, now_s
    return owners, position, time_s
