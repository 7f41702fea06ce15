"""Queries. In: feature maps of many images, points that some of them show. Out: features at these points, level by level.

Only pairs of a point and an image that shows it are read, and the maps are read where they lie: a group of channels is a view
of them, so nothing of the size of the maps is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projects.geometry import sample_bilinear
from projects.memfusion.losses.ranks import tied_to


@dataclass(frozen=True)
class MapPoints:
    """Points of Q queries as one source (the N images of a frame, or a BEV map) shows them.

    Attributes:
        levels: (B, N, E, h, w) each; the G groups of points share the E channels out.
        uv_px: (B, N, Q, G, P, 2) pixels of what the maps cover, finite everywhere.
        seen: (B, N, Q, G, P) bool, which pairs are read; their mean over the views is a point's feature.
        weights: (B, Q, G, P, L) of the levels.
        covered_hw: height and width, pixels, that every level covers.
        image_hw: (B, N, 2) height and width of what is no padding; None is all.
        corners: whether the outermost cells' centres lie on the border (align_corners); then pixels count from 0 to the width,
            else from -0.5 to width - 0.5.
        faded: whether there is 0 outside the maps; else the nearest cell of the image.
    """

    levels: Sequence[Tensor]
    uv_px: Tensor
    seen: Tensor
    weights: Tensor
    covered_hw: tuple[int, int]
    image_hw: Tensor | None = None
    corners: bool = False
    faded: bool = False

    def grid(self, uv_px: Tensor, shape: torch.Size) -> Tensor:
        """(B * N, m, 2) pixels -> where sample_bilinear finds them in a level of this shape (..., h, w)."""
        sides = []
        for axis, (cells, covered) in enumerate(zip(shape[:-3:-1], self.covered_hw[::-1])):  # w, then h
            pixel = uv_px[..., axis]
            if self.corners:
                sides.append(pixel * (2 * (cells - 1) / (covered * cells)) + (1 / cells - 1))
                continue
            if self.image_hw is not None and not self.faded:
                stride = covered / cells
                last = ((self.image_hw.flatten(0, 1)[:, 1 - axis] / stride).ceil() - 0.5) * stride - 0.5
                pixel = pixel.minimum(last[:, None].to(pixel.dtype))
            sides.append((pixel + 0.5) * (2 / covered) - 1)
        return torch.stack(sides, dim=-1)


def limit_views(seen: Tensor, most: int) -> Tensor:
    """(B, N, ...) bool -> the same with at most the first `most` views of every point."""
    return seen & (seen.cumsum(1) <= most)


def read_maps(sources: Sequence[MapPoints]) -> Tensor:
    """T sources -> (B, Q, G, T * P, E / G), source-major; 0 for points that no view shows.

    The host waits once: for how many points the fullest image of each source shows.
    """
    batch, _, queries, groups, points = sources[0].seen.shape
    rows = batch * queries * groups
    channels = sources[0].levels[0].shape[2] // groups
    out = sources[0].levels[0].new_zeros(rows * len(sources) * points + 1, channels)  # the last one is for nobody
    fullest = torch.stack([source.seen.sum((2, 4)).amax() for source in sources]).tolist()
    unread = [level for source, most in zip(sources, fullest) if not most for level in source.levels]
    for t, (source, most) in enumerate(zip(sources, fullest)):
        if most:
            slots = _Slots.of(source.seen, most)
            features = _read(source, slots).flatten(0, 1)
            at = (slots.row * len(sources) + t) * points + slots.point
            out = out.index_add_(0, at.where(slots.filled, len(out) - 1).flatten(), features)
    out = tied_to(out, unread)  # other processes wait for their gradients
    return out[:-1].view(batch, queries, groups, len(sources) * points, channels)


@dataclass(frozen=True)
class _Slots:
    """For each of B * N * G pairs of an image and a group, m of the Q * P points that it shows; int64 (B * N * G, m).

    Attributes:
        place: in Q * P; the last one where not filled.
        row: in B * Q * G.
        point: in P.
        share: float, 1 / how many views show the point.
        filled: bool.
    """

    place: Tensor
    row: Tensor
    point: Tensor
    share: Tensor
    filled: Tensor

    @classmethod
    def of(cls, seen: Tensor, most: int) -> _Slots:
        batch, views, queries, groups, points = seen.shape
        flat = seen.transpose(2, 3).flatten(3)  # (B, N, G, Q * P)
        slot = torch.where(flat, flat.cumsum(-1) - 1, most)
        all_places = torch.arange(queries * points, device=seen.device).expand_as(slot)
        place = slot.new_full((*slot.shape[:-1], most + 1), queries * points).scatter(-1, slot, all_places)[..., :most]
        filled = place < queries * points
        place = place.clamp(max=queries * points - 1)
        count = flat.sum(1, keepdim=True).clamp(min=1).expand(-1, views, -1, -1).gather(-1, place)
        frame = torch.arange(batch, device=seen.device).view(-1, 1, 1, 1)
        group = torch.arange(groups, device=seen.device).view(-1, 1)
        row = (frame * queries + place.div(points, rounding_mode='floor')) * groups + group
        return cls(*(value.flatten(0, 2) for value in (place, row, place % points, count.reciprocal(), filled)))


def _read(source: MapPoints, slots: _Slots) -> Tensor:
    """(B * N * G, m, c): the weighted sum over the levels."""
    batch, views, queries, groups, points = source.seen.shape
    images = batch * views
    place = slots.place.view(images, groups, -1)
    uv_px = source.uv_px.transpose(2, 3).reshape(images, groups, -1, 2)
    uv_px = uv_px.gather(2, place[..., None].expand(-1, -1, -1, 2)).flatten(1, 2)  # (images, G * m, 2)
    weights = source.weights.flatten(0, 3).index_select(0, (slots.row * points + slots.point).flatten())
    weights = (weights * slots.share.flatten()[:, None]).view(images * groups, 1, -1, len(source.levels))
    total: Tensor | None = None
    for level, weight in zip(source.levels, weights.unbind(-1)):
        maps = level.reshape(images * groups, -1, *level.shape[-2:])
        grid = source.grid(uv_px, level.shape).view(images * groups, -1, 1, 2)
        sampled = sample_bilinear(maps, grid, 'zeros' if source.faded else 'border')[..., 0] * weight
        total = sampled if total is None else total + sampled
    assert total is not None
    return total.transpose(1, 2)
