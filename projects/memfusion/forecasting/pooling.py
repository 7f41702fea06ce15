"""Forecasting: one vector of each agent and frame. In: maps of memory, shares of masks. Out: (B, A, T, C), flags."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from projects.geometry import Surroundings, sample_bilinear

POOLINGS = ('masked', 'around', 'center', 'attn', 'mean')


class AgentPooling(BaseModule):
    """Pools maps per agent and frame.

    'masked' weighs cells by the share of them that the agent's mask covers; where the mask is empty it samples at the agent's
    centre, with flag 0. 'around' is the same, and beside it the map at points around the agent, in its own frame: zeros where
    they lie outside of the map. 'center' always samples at the centre, flag 1 inside the map. 'attn' weighs the mask's cells by
    a learned score and its surroundings a little; an empty mask as 'masked'. 'mean' is the naive baseline: the mean over all
    cells of all agents, the same vector for each.

    Args:
        kind: one of POOLINGS.
        channels: C.
        around: the P points of 'around'; None is the usual ones.
    """

    def __init__(self, kind: str, channels: int, around: Surroundings | None = None) -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise ValueError(f'pooling must be one of {POOLINGS}, got {kind!r}')
        self.kind = kind
        self.around = (around or Surroundings()) if kind == 'around' else None
        self.dim = channels * (1 + (0 if self.around is None else self.around.num_points))
        self.score = nn.Linear(channels, 1) if kind == 'attn' else None

    def forward(self, maps: Tensor, shares: Tensor, centers: Tensor, there: Tensor,
                around: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features of every agent in every frame, zeros where it was not there.

        Args:
            maps: (B, T, A, C, h, w).
            shares: (B, T, A, h, w) in 0..1.
            centers: (B, T, A, 2) in -1..1 over the map.
            there: (B, T, A) bool.
            around: (B, T, A, P, 2) as centers, for 'around'.

        Returns:
            (B, A, T, C) and flags (B, A, T); (B, A, T, C (1 + P)) of 'around', the agent's own first.

        Raises:
            ValueError: 'around' without its points.
        """
        flags = (shares.sum(dim=(-2, -1)) > 0).to(maps.dtype)
        if self.kind == 'mean':
            pooled, flags = self._mean(maps, there), torch.ones_like(flags)
        else:
            sampled = sample_at(maps, centers)
            if self.kind == 'center':
                pooled, flags = sampled, (centers.abs() <= 1).all(dim=-1).to(maps.dtype)
            else:
                weights = self._weights(maps, shares)
                inside = torch.einsum('btahw,btachw->btac', weights, maps)
                pooled = torch.where(flags[..., None] > 0, inside, sampled)
            if self.around is not None:
                if around is None:
                    raise ValueError("AgentPooling('around') needs the points around each agent: give bev_masks its `around`")
                pooled = torch.cat([pooled, sample_points(maps, around).flatten(-2).to(pooled)], dim=-1)
        pooled, flags = pooled * there[..., None], flags * there
        return pooled.transpose(1, 2), flags.transpose(1, 2)

    def _mean(self, maps: Tensor, there: Tensor) -> Tensor:
        counts = there.sum(dim=2)[..., None, None].clamp(min=1)
        together = (maps.mean(dim=(-2, -1)) * there[..., None]).sum(dim=2, keepdim=True) / counts
        return together.expand(-1, -1, maps.shape[2], -1)

    def _weights(self, maps: Tensor, shares: Tensor) -> Tensor:
        """(B, T, A, h, w) that sum to 1; anything where the mask is empty."""
        if self.score is None:
            return shares / shares.sum(dim=(-2, -1), keepdim=True).clamp(min=1e-6)
        scores = self.score(maps.movedim(3, -1))[..., 0] + (shares + 0.01).log()
        return scores.flatten(-2).softmax(dim=-1).view_as(shares)


def sample_at(maps: Tensor, centers: Tensor) -> Tensor:
    """Maps (B, T, A, C, h, w) at centers (B, T, A, 2) in -1..1, bilinearly -> (B, T, A, C); 0 outside."""
    return sample_points(maps, centers.to(maps.dtype)[..., None, :])[..., 0, :]


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (B, T, A, C, h, w) at points (B, T, A, P, 2) in -1..1, bilinearly, as precisely as points -> (B, T, A, P, C)."""
    flat = maps.flatten(0, 2).to(points.dtype)
    if not len(flat):
        return flat.new_zeros(*points.shape[:4], maps.shape[3])
    return sample_bilinear(flat, points.flatten(0, 2)[:, :, None])[..., 0].mT.unflatten(0, maps.shape[:3])
