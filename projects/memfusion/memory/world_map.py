"""Stage memory: what left the slots, in a map that lies still in the world. In: a frame's stored maps. Out: the map with them.

Its axes are the global ones and it moves on with the ego by whole cells, so that nothing blurs, however long a scene is. A cell
holds the newest frame in which something was seen there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry import full_precision, warp_bev
from projects.geometry.rigid import invert_affine

_REACH = 2
"""Cells around a point in which something counts as seen: the middle of an object has none."""


def check_world_range(point_cloud_range: Sequence[float], align: str) -> None:
    """ValueError where a map with other axes would cover another place than the BEV, or has no place in the world."""
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    if len({-x_min, -y_min, x_max, y_max}) != 1:
        raise ValueError('temporal.long_term=True keeps a map with the axes of the world: model.grid.point_cloud_range must '
                         f'reach as far in every direction, got {tuple(point_cloud_range)}')
    if align != 'network':
        raise ValueError(f"temporal.long_term=True moves its map with the ego, which needs align='network', got {align!r}")


@full_precision
def world_pose(global_from_bev: Tensor, cell_m: Sequence[float]) -> Tensor:
    """(B, 4, 4) float64 global_from_map: the global axes, at the corner of cells (x, y in metres) next to the ego."""
    place = global_from_bev[:, :3, 3].double()
    size = torch.tensor([*cell_m, 1.0], dtype=torch.float64).to(place.device, non_blocking=True)
    snapped = torch.cat([(place[:, :2] / size[:2]).floor() * size[:2], place[:, 2:]], dim=1)
    pose = torch.eye(4, dtype=torch.float64, device=place.device).repeat(len(place), 1, 1)
    pose[:, :3, 3] = snapped
    return pose


def moved_on(stored: Tensor, old_pose: Tensor, new_pose: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """(B, D, H, W) of one world pose as they lie in another: shifted by whole cells; what leaves the map is forgotten."""
    return warp_bev(stored, invert_affine(new_pose) @ old_pose, point_cloud_range)


def newest_seen(stored_there: Tensor, new_there: Tensor, new_observed: Tensor) -> Tensor:
    """(B, 1, H, W) bool: where a new map replaces what is stored, having something that was seen, or nothing being stored.

    Args:
        stored_there, new_there, new_observed: (B, 1, H, W) in 0..1: something lies here; a point was seen here.
    """
    seen = F.max_pool2d(new_observed, 2 * _REACH + 1, stride=1, padding=_REACH) > 0.5
    return (new_there > 0.5) & (seen | (stored_there < 0.5))
