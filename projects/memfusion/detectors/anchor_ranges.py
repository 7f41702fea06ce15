"""Config, no network. In: `model.grid` and an anchor generator's config. Out: its ranges (m, LiDAR frame), complete."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from projects.geometry import BEVGrid

AXES = {0: 'x', 1: 'y', 3: 'x', 4: 'y'}
"""Places of a range [x, y, z, x, y, z] that the grid knows; z is the height of the anchors."""


def fill_anchor_ranges(grid: BEVGrid, generator: MutableMapping[str, Any]) -> None:
    """Writes the grid into the x and y places of mmdet3d's `anchor_generator.ranges` that are None, in place.

    Numbers may differ from the grid by up to a cell, as mmdet3d's own configs do (49.6 m on a grid of 50 m).

    Args:
        grid: the cells.
        generator: dict(type='AlignedAnchor3DRangeGenerator', ranges=[[None, None, z_m, None, None, z_m], ...], ...).

    Raises:
        ValueError: where a range says something else than the grid; names the key.
    """
    key = 'model.pts_bbox_head.anchor_generator.ranges'
    ranges = generator.get('ranges')
    if not isinstance(ranges, (list, tuple)) or any(not isinstance(r, (list, tuple)) or len(r) != 6 for r in ranges):
        raise ValueError(f'{key} must be [[None, None, z_m, None, None, z_m], ...], one for each of sizes, whose x and y '
                         f'model.grid fills in; got {ranges}')
    count = len(generator.get('sizes') or [])
    if generator.get('size_per_range', True) and count and len(ranges) not in (1, count):
        raise ValueError(f'{key} has {len(ranges)} entries for {count} of sizes: write one for each, or one for all')
    filled = []
    for number, given in enumerate(ranges):
        span = list(given)
        for place, axis in AXES.items():
            wanted = _place(grid, place, aligned=str(generator.get('type')).startswith('Aligned'))
            cell = grid.voxel_size[place % 3] * grid.out_size_factor
            if span[place] is None:
                span[place] = wanted
            elif abs(span[place] - wanted) > cell + 1e-6:
                raise ValueError(f'{key}[{number}] has {axis}={span[place]}, but model.grid goes to {wanted}: write None for x '
                                 'and y, which model.grid fills in')
        low, high = grid.point_cloud_range[2], grid.point_cloud_range[5]
        if None in span or not all(low <= z <= high for z in (span[2], span[5])):
            raise ValueError(f'{key}[{number}] has z={span[2]}..{span[5]}: the height of the anchors must lie within {low}..'
                             f'{high} of model.grid')
        filled.append(span)
    generator['ranges'] = filled


def _place(grid: BEVGrid, place: int, aligned: bool) -> float:
    """Where anchors begin or end: at the grid's border, or at the outermost centres of cells where not aligned."""
    border = float(grid.point_cloud_range[place])
    if aligned:
        return border
    half = grid.voxel_size[place % 3] * grid.out_size_factor / 2
    return border + half if place < 3 else border - half
