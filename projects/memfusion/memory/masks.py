"""Masks that are written to memory. In: boxes or probabilities. Out: (B, K, Hm, Wm) masks in 0..1, current BEV frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry import BEVGrid, rasterize_box_batch

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


def draw_masks(boxes: Tensor, valid: Tensor, global_from_bev: Tensor, position: Tensor, time_s: Tensor, now_s: Tensor,
               policy: MaskPolicy, point_cloud_range: Sequence[float],
               map_shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes -> (B, K, Hm, Wm) float masks of the agents whose they are, and the agents' new position and time_s.

    Arguments as those of `match_agents` and `boxes_to_masks`; the host waits for nothing.
    """
    owners, position, time_s = match_agents(boxes, valid, global_from_bev, position, time_s, now_s, policy)
    return boxes_to_masks(boxes, valid, owners, policy.num_agents, point_cloud_range, map_shape), position, time_s


def boxes_to_masks(boxes: Tensor, valid: Tensor, owners: Tensor, num_agents: int, point_cloud_range: Sequence[float],
                   map_shape: Sequence[int]) -> Tensor:
    """Boxes (B, n, 7+), which count (B, n) bool, their agents (B, n) int64 in 0..K-1 -> (B, K, Hm, Wm) float masks."""
    grid = BEVGrid.of_shape(point_cloud_range, map_shape)
    members = (owners[:, None] == torch.arange(num_agents, device=owners.device)[:, None]) & valid[:, None]
    return rasterize_box_batch(boxes[..., :7], members, grid).float()


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


def match_agents(boxes: Tensor, valid: Tensor, global_from_bev: Tensor, position: Tensor, time_s: Tensor, now_s: Tensor,
                 policy: MaskPolicy) -> tuple[Tensor, Tensor, Tensor]:
    """Gives each box of B samples to an agent: greedily to the nearest within `match_m` of where it was last.

    Boxes are taken in order (the head gives them by descending score). One that matches nobody takes a free place, or
    joins the last mask, which holds all others.

    Args:
        boxes: (B, n, 7+) in the BEV frame; valid: (B, n) bool, which of them are no padding.
        global_from_bev: (B, 4, 4) float64.
        position: (B, K, 2) float64 global metres; time_s: (B, K) float64, 0 where a place is free.
        now_s: (B,) float64.

    Returns:
        owners (B, n) int64 in 0..K-1, and the new position and time_s.
    """
    last = policy.num_agents - 1
    time_s = time_s.masked_fill(now_s[:, None] - time_s > policy.keep_s, 0)
    owners = torch.full(valid.shape, last, dtype=torch.int64, device=boxes.device)
    if not last or not valid.shape[1]:
        return owners, position, time_s
    xyz = boxes[..., :3].double()
    centers = torch.cat([xyz, torch.ones_like(xyz[..., :1])], dim=-1) @ global_from_bev.mT
    was_here = time_s[:, :last] > 0
    distance = (centers[:, :, None, :2] - position[:, None, :last]).norm(dim=-1).masked_fill(~was_here[:, None], torch.inf)
    # Places only get fewer: a box that finds none has none later either. So each round serves the first box that finds one.
    open_places, waiting = torch.ones_like(was_here), valid
    places, order = torch.arange(last, device=boxes.device), torch.arange(valid.shape[1], device=boxes.device)
    for _ in range(last):
        nearest_m, nearest = distance.masked_fill(~open_places[:, None], torch.inf).min(dim=2)  # (B, n)
        free = open_places & ~was_here
        served = waiting & ((nearest_m <= policy.match_m) | free.any(dim=1, keepdim=True))
        box = served.byte().argmax(dim=1, keepdim=True)  # (B, 1) the first, or any where there is none
        matched = nearest_m.gather(1, box) <= policy.match_m
        place = torch.where(matched, nearest.gather(1, box), free.byte().argmax(dim=1, keepdim=True))
        takes = (places == place) & served.any(dim=1, keepdim=True)  # (B, K - 1)
        owners = torch.where((order == box) & served, place, owners)
        open_places, waiting = open_places & ~takes, served & (order > box)
        takes = F.pad(takes, (0, 1))
        position = torch.where(takes[..., None], centers.gather(1, box[..., None].expand(-1, -1, 4))[..., :2], position)
        time_s = torch.where(takes, now_s[:, None], time_s)
    return owners, position, time_s
