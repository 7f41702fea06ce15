"""Queries. In: viewing rays of image cells, points, the rig. Out: embeddings (.., E), augmented LiDAR frame (CMT's ray MLP).

A ray's points at D depths go through one MLP, for image tokens and for queries alike. They lie on a line, so its first layer is
linear in origin and direction: it is folded into two (4E, 3) matrices, and no (.., 3 D) coordinates are ever made. A query's
ray in a camera is the one through its own point, (point - origin) / depth: nothing is projected and lifted again. What sees a
query is added up before the second layer, which is linear. The hidden layer is made piece by piece and never kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings.pieces import in_pieces
from projects.geometry.precision import full_precision
from projects.geometry.projection import inside_image
from projects.memfusion.structures import Calibration

MIN_DEPTH_M = 1e-5
_PIECE = 2 ** 19
"""Numbers of the hidden layer that are there at a time."""


class RayEmbedding(nn.ModuleList):
    """The MLP of CMT (Yan et al., ICCV 2023); parameters have the published names.

    Args:
        dim: E.
        num_depths: D; depths are 1 + i (x_max - 1) / D metres.
        point_cloud_range: points are taken in parts of it, 0 to 1 inside, and not clamped.
        summed: add the embeddings of the cameras that see a query instead of averaging them.
        padded_view: a camera sees a point wherever its padded image, that of the whole batch, has a pixel for it.
    """

    def __init__(self, dim: int, num_depths: int, point_cloud_range: Sequence[float], summed: bool = False,
                 padded_view: bool = False) -> None:
        if num_depths < 2:
            raise ValueError(f'model.pts_bbox_head.inputs.num_depths must be at least 2, got {num_depths}')
        super().__init__([nn.Linear(3 * num_depths, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim)])
        self.summed, self.padded_view = summed, padded_view
        low, high = torch.tensor(point_cloud_range).split(3)
        self.low_m: Tensor
        self.size_m: Tensor
        self.depths_m: Tensor
        self.register_buffer('low_m', low, persistent=False)
        self.register_buffer('size_m', high - low, persistent=False)
        self.register_buffer('depths_m', 1 + torch.arange(num_depths) * ((point_cloud_range[3] - 1) / num_depths),
                             persistent=False)

    def forward(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Of rays, origin + depth_m * direction: (B, N, 3) and (B, N, ..., 3) -> (B, N, ..., E)."""
        along, at = self._folded(origins)
        made = in_pieces(lambda rays: self._layer(2)(self._hidden(rays, along, at)), [directions.flatten(2, -2)], 2,
                         self._piece(directions))
        return made.view(*directions.shape[:-1], -1)

    def of_points(self, points_m: Tensor, rig: Calibration, shown: Tensor | None = None) -> Tensor:
        """Of the rays through points, mean over the cameras that see them; 0 where none does.

        Args:
            points_m: (B, Q, 3), augmented LiDAR frame.
            rig: of the B frames.
            shown: (B,) bool, frames whose cameras count; None is all.

        Returns:
            (B, Q, E).
        """
        directions, seen = self.point_rays(points_m, rig)
        share = (seen if shown is None else seen & shown[:, None, None]).float()
        if not self.summed:
            share = share / share.sum(1, keepdim=True).clamp(min=1)
        along, at = self._folded(rig.views().origins)

        def make(rays: Tensor, weight: Tensor) -> Tensor:
            return F.linear(self._hidden(rays, along, at, weight).sum(1, keepdim=True), self._layer(2).weight)

        made = in_pieces(make, [directions, share[..., None]], 2, self._piece(directions))[:, 0]
        return made + share.sum(1)[..., None].to(made.dtype) * self._layer(2).bias

    @full_precision
    def point_rays(self, points_m: Tensor, rig: Calibration) -> tuple[Tensor, Tensor]:
        """(B, Q, 3) -> directions (B, N, Q, 3) of length 1 in depth, and which camera sees which point, (B, N, Q) bool.

        Directions are 0 where a camera does not see the point, so that they and their gradients are finite.
        """
        if self.padded_view:
            views = rig.views()
            uv_px, depth_m, has_pixel = rig.project_cam(rig.to_cam(points_m), MIN_DEPTH_M)
            height, width = views.padded_hw
            seen = has_pixel & inside_image(uv_px, uv_px.new_tensor([height, width]))
        else:
            _, depth_m, seen = rig.project(points_m)
        offset = points_m[:, None] - rig.views().origins[:, :, None]
        directions = offset / torch.where(seen, depth_m, torch.ones_like(depth_m))[..., None]
        return directions * seen[..., None], seen

    @full_precision
    def coordinates(self, origins: Tensor, directions: Tensor) -> Tensor:
        """What the first layer is linear in: points at all depths in parts of the range, (B, N, ..., 3 D), depth by depth."""
        origins = origins.view(*origins.shape[:2], *[1] * (directions.dim() - 3), 3)
        points = origins[..., None, :] + self.depths_m[:, None] * directions[..., None, :]
        return ((points - self.low_m) / self.size_m).flatten(-2)

    @full_precision
    def _folded(self, origins: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer on rays: what multiplies directions (3, 4E), and what is added for an origin (B, N, 1, 4E)."""
        first = self._layer(0)
        by_depth = first.weight.float().unflatten(1, (-1, 3))
        along = torch.einsum('cdk,d->kc', by_depth, self.depths_m) / self.size_m[:, None]
        return along, F.linear((origins - self.low_m) / self.size_m, by_depth.sum(1), first.bias.float())[:, :, None]

    @full_precision
    def _hidden(self, directions: Tensor, along: Tensor, at: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, N, P, 3) -> (B, N, P, 4E) after the ReLU, times a weight (B, N, P, 1) that is not negative.

        A ReLU lets such a weight through, so that what is multiplied is the few numbers that come in.
        """
        batch = directions.shape[:2]
        if weight is None:
            return torch.baddbmm(at.flatten(0, 1), directions.flatten(0, 1), along.expand(len(directions) * batch[1], -1, -1)
                                 ).relu_().unflatten(0, batch)
        numbers = torch.cat([directions * weight, weight], dim=-1)
        return torch.matmul(numbers, torch.cat([along.expand(*batch, -1, -1), at], dim=2)).relu_()

    def _piece(self, directions: Tensor) -> int:
        """How many rays of every camera are looked at together."""
        return max(_PIECE // max(math.prod(directions.shape[:2]) * self._layer(0).out_features, 1), 1)

    def _layer(self, place: int) -> Any:
        return self[place]
