"""Geometry, pure functions. In: objects as cells and sizes, padded per map. Out: heatmaps, 1 at their centres, and radii."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK_CELLS = 1 << 22
"""Cells of all objects' own maps that are held at once, which bounds memory (8 bytes each)."""


def draw_gaussians(centers: Tensor, radii: Tensor, valid: Tensor, shape: Sequence[int],
                   channels: Tensor | None = None) -> Tensor:
    """Maxima over objects of Gaussians that are cut off beyond their radius, sigma (2 * radius + 1) / 6.

    Source: CornerNet (Law and Deng, ECCV 2018); the values are those of mmdet3d's draw_heatmap_gaussian.

    Args:
        centers: (V, n, 2) int64, column and row, inside the map where valid.
        radii: (V, n) int64, cells, 0 or more.
        valid: (V, n) bool; others draw nothing.
        shape: (K, H, W) of the maps of a frame.
        channels: (V, n) int64 in 0..K-1, which map an object is drawn on; None draws all on the first.

    Returns:
        (V, K, H, W) float32, exactly 1 at the centres.
    """
    count, (depth, height, width) = centers.shape[1], shape
    heatmap = torch.zeros(len(centers), *shape, device=centers.device)
    if channels is None:
        channels = torch.zeros_like(radii)
    # exp(-(x^2 + y^2)) is a product of a row and a column; in float64, so that rounding to float32 hides the difference.
    along, across = (_profile(centers[..., axis], radii, size) for axis, size in ((0, width), (1, height)))
    across = across * valid[..., None]
    chunk = max(1, CHUNK_CELLS // max(1, len(centers) * height * width))
    for begin in range(0, count, chunk):
        part = slice(begin, begin + chunk)
        drawn = (across[:, part, :, None] * along[:, part, None, :]).float()
        if depth == 1:
            heatmap = torch.maximum(heatmap, drawn.amax(dim=1, keepdim=True))
        else:
            heatmap.scatter_reduce_(1, channels[:, part, None, None].expand_as(drawn), drawn, 'amax')
    return heatmap


def _profile(center: Tensor, radius: Tensor, size: int) -> Tensor:
    """(V, n) -> (V, n, size) float64: the Gaussian along one axis."""
    offset = torch.arange(size, device=center.device) - center[..., None]
    sigma = (2 * radius + 1).double()[..., None] / 6
    value = torch.exp(-offset.double().square() / (2 * sigma * sigma))
    return value.masked_fill(offset.abs() > radius[..., None], 0.0)


def centerpoint_radius(length: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """Radius of a box's Gaussian in cells, a fraction, as CenterPoint and mmdet3d compute it; sizes in cells, any shape.

    It is CornerNet's first code, whose roots differ from those of `cornernet_radius`, which the paper means.
    """
    roots = [(b + torch.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in _quadratics(width, length, min_overlap)]
    return torch.stack(roots).amin(0)


def cornernet_radius(height: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """How far, in cells, both corners of a box may move until the IoU is `min_overlap` only; as mmdet's gaussian_radius."""
    roots = [(b + sign * torch.sqrt(b * b - 4 * a * c)) / (2 * a)
             for sign, (a, b, c) in zip((-1, -1, 1), _quadratics(height, width, min_overlap), strict=True)]
    return torch.stack(roots).amin(0)


def _quadratics(height: Tensor, width: Tensor, min_overlap: float) -> list[tuple[float, Tensor, Tensor]]:
    """a, b, c of a r^2 - b r + c = 0: one corner inside and one outside, both inside, both outside (here b is below 0)."""
    around = height + width  # the products in their sources' order, so that no radius falls to the other side of an integer
    return [(1.0, around, width * height * (1 - min_overlap) / (1 + min_overlap)),
            (4.0, 2 * around, (1 - min_overlap) * width * height),
            (4 * min_overlap, -2 * min_overlap * around, (min_overlap - 1) * width * height)]
