"""Queries. In: image levels (B, N, C, h, w), their rig. Out: tokens (B, N h w, C), camera-major; which show anything."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from projects.geometry.views import cell_pixels
from projects.memfusion.structures import Calibration


def flat_tokens(level: Tensor) -> Tensor:
    """(B, N, C, h, w) -> (B, N h w, C): camera, row, column."""
    return level.flatten(3).transpose(2, 3).flatten(1, 2)


def level_at(levels: Sequence[Tensor] | None, position: int, channels: int, what: str) -> Tensor:
    """The level of a position; ValueError, which names the setting `what`, where there is none or it has other channels."""
    count = len(levels or ())
    if levels is None or not -count <= position < count:
        raise ValueError(f'{what}.level={position}, but img_neck gives {count} levels')
    if levels[position].shape[2] != channels:
        raise ValueError(f'{what} is made for {channels} channels, but image level {position} has {levels[position].shape[2]}: '
                         'set it and out_channels of model.img_neck alike')
    return levels[position]


def shown_cells(calibration: Calibration, level_shape: Sequence[int], offset: float = 0.5) -> Tensor | None:
    """Cells whose camera is there and whose pixel lies in the image, not in its padding.

    Args:
        calibration: of B frames and N cameras.
        level_shape: (..., h, w).
        offset: where in a cell it is looked, in cells: 0.5 is its centre, 0 its upper left corner.

    Returns:
        (B, N, h, w) bool; None where all cells do, which the host knows.
    """
    height, width = level_shape[-2:]
    padded, facts = calibration.views().padded_hw, calibration.facts
    whole = all(size == padded[axis] for axis, table in enumerate((facts.img_height, facts.img_width))
                for row in table for size in row)
    there = all(all(row) for row in facts.cam_valid)
    if whole and there:
        return None
    present = calibration.cam_valid[..., None, None].expand(-1, -1, height, width)
    if whole:
        return present
    pixels = cell_pixels((height, width), padded, offset, calibration.cam_valid.device) + 0.5
    size = calibration.img_hw[..., None, None, :].flip(-1).to(pixels.dtype)
    return present & (pixels < size).all(-1)
