"""Benchmark. In: feature maps of all views, matrices, padding. Out: PETRv2's embeddings, in the order of the published steps.

Every intermediate array exists for all views, depths and cells at once, as the papers' description reads (Liu et al., PETR,
ECCV 2022; PETRv2, ICCV 2023). The embeddings of projects.memfusion.queries are measured against it; it replays the published
numbers, so the same arithmetic is compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_EPS, _SINE_EPS = 1e-5, 1e-6


@dataclass(frozen=True)
class PlainSteps:
    """What the published steps leave behind, (B, V, ...) each: normalised points (D, 3, H, W), embeddings (E, H, W)."""

    coords3d: Tensor
    coords_embed: Tensor
    fpe_embed: Tensor
    sine_embed: Tensor
    sine_adapted: Tensor
    pos_embed: Tensor


class PlainGate(nn.Module):
    """Squeeze and excitation of single cells: what a cell shows weighs its embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_reduce, self.conv_expand = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, embedding: Tensor, features: Tensor) -> Tensor:
        """Both (V, E, H, W)."""
        return embedding * self.conv_expand(self.conv_reduce(features).relu()).sigmoid()


class PlainEmbedding(nn.Module):
    """The embedding of image cells.

    Args:
        dim: E.
        depths: D.
        position_range: x, y, z low and high of the frustum's points, metres.
        depth_start: first depth, metres.
        increasing: whether the steps between depths grow (LID).
        multiview: whether the sine counts views as well as rows and columns.
    """

    def __init__(self, dim: int = 256, depths: int = 64,
                 position_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0), depth_start: float = 1.0,
                 increasing: bool = True, multiview: bool = True) -> None:
        super().__init__()
        self.dim, self.depths, self.depth_start, self.increasing = dim, depths, depth_start, increasing
        self.position_range, self.multiview = tuple(position_range), multiview
        self.position_encoder = nn.Sequential(nn.Conv2d(3 * depths, 4 * dim, 1), nn.ReLU(), nn.Conv2d(4 * dim, dim, 1))
        wide = (dim // 2 * 3, 4 * dim) if multiview else (dim, dim)
        self.adapt_pos3d = nn.Sequential(nn.Conv2d(wide[0], wide[1], 1), nn.ReLU(), nn.Conv2d(wide[1], dim, 1))
        self.fpe = PlainGate(dim)

    def forward(self, features: Tensor, img_from_lidar: Tensor, masks: Tensor, pad_hw: tuple[int, int]) -> PlainSteps:
        """Everything, in the published order.

        Args:
            features: (B, V, E, H, W) after the input projection.
            img_from_lidar: (B, V, 4, 4) float64.
            masks: (B, V, H, W) bool, True where a cell is padding.
            pad_hw: height and width of the padded images.
        """
        shape = features.shape[:2]
        coords3d = self.points(img_from_lidar, features.shape[-2:], pad_hw)
        flat = _inverse_sigmoid(coords3d).flatten(0, 1).flatten(1, 2)
        coords_embed = self.position_encoder(flat)
        fpe_embed = self.fpe(coords_embed, features.flatten(0, 1))
        sine_embed = self.sine(masks)
        sine_adapted = self.adapt_pos3d(sine_embed.flatten(0, 1))
        pos_embed = fpe_embed + sine_adapted
        each = (part.unflatten(0, shape) for part in (coords_embed, fpe_embed, sine_adapted, pos_embed))
        embed, gated, adapted, together = each
        return PlainSteps(coords3d, embed, gated, sine_embed, adapted, together)

    def points(self, img_from_lidar: Tensor, size: Sequence[int], pad_hw: tuple[int, int]) -> Tensor:
        """(B, V, D, 3, H, W): points of the frustum as shares of the range."""
        (height, width), (batch, views) = size, img_from_lidar.shape[:2]
        device = img_from_lidar.device
        v = torch.arange(height, device=device).float() * pad_hw[0] / height
        u = torch.arange(width, device=device).float() * pad_hw[1] / width
        depth = self.depths_m(device)
        coords = torch.stack(torch.meshgrid(u, v, depth, indexing='ij'), dim=-1)
        coords = torch.cat([coords, torch.ones_like(coords[..., :1])], dim=-1)
        coords[..., :2] *= torch.maximum(coords[..., 2:3], torch.full_like(coords[..., 2:3], _EPS))
        coords = coords[None, None, ..., None].repeat(batch, views, 1, 1, 1, 1, 1)
        lidar_from_img = torch.linalg.inv(img_from_lidar).float()[:, :, None, None, None]
        lidar_from_img = lidar_from_img.repeat(1, 1, width, height, self.depths, 1, 1)
        points = torch.matmul(lidar_from_img, coords).squeeze(-1)[..., :3]
        low, high = points.new_tensor(self.position_range).split(3)
        return ((points - low) / (high - low)).permute(0, 1, 4, 5, 3, 2).contiguous()

    def depths_m(self, device: torch.device) -> Tensor:
        """(D,)."""
        index = torch.arange(self.depths, device=device).float()
        reach = self.position_range[3] - self.depth_start
        if self.increasing:
            return self.depth_start + reach / (self.depths * (1 + self.depths)) * index * (index + 1)
        return self.depth_start + reach / self.depths * index

    def sine(self, masks: Tensor) -> Tensor:
        """(B, V, 3 E / 2 or E, H, W)."""
        there, half = (~masks).float(), self.dim // 2
        steps = torch.arange(half, device=masks.device, dtype=torch.float32)
        ladder = 10000 ** (2 * torch.div(steps, 2, rounding_mode='floor') / half)
        parts = []
        for axis in (1, 2, 3) if self.multiview else (2, 3):
            count = there.cumsum(axis, dtype=torch.float32)
            last = count.narrow(axis, count.shape[axis] - 1, 1)
            angle = (count / (last + _SINE_EPS) * (2 * math.pi))[..., None] / ladder
            pair = [angle[..., 0::2].sin(), angle[..., 1::2].cos()]
            parts.append(torch.stack(pair, dim=4 if self.multiview else -1).flatten(-2))  # with views: sines, then cosines
        return torch.cat(parts, dim=-1).permute(0, 1, 4, 2, 3)


def _inverse_sigmoid(share: Tensor) -> Tensor:
    share = share.clamp(min=0, max=1)
    return torch.log(share.clamp(min=_EPS) / (1 - share).clamp(min=_EPS))
