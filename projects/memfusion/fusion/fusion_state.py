"""Fusion contract, no network: what FuTr++ hands from stage to stage. Cells and points are in the augmented LiDAR frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from projects.encodings import Views
from projects.memfusion.structures import Calibration


@dataclass(frozen=True)
class CameraTokens:
    """Camera features on a coarse grid of T tokens: features (V, N, T, D), uv_px (V, N, T, 2) the mean network pixel of a
    token's feature cells, valid (V, N, T) bool: whether its camera is there, views: from where they look, for pose encodings;
    None where nobody asks."""

    features: Tensor
    uv_px: Tensor
    valid: Tensor
    views: Views | None = None

    def mean(self) -> Tensor:
        """(V, N, D), the mean of a camera's valid tokens; 0 where there is none."""
        valid = self.valid[..., None]
        return self.features.masked_fill(~valid, 0).sum(2) / valid.sum(2).clamp(min=1)


@dataclass(frozen=True)
class FusionState:
    """What the stages read and change.

    Attributes:
        bev_lidar: (V, C, H, W), as it came in.
        bev: (V, C, H, W), so far.
        maps: levels of (V, N, Ci, h, w).
        tokens: of the cameras; None where no stage reads them.
        calibration: the rig, corrected by calib_refine.
        weight: (V, N) float, how much a camera counts: 0 for one that is not there, else the confidence in its calibration.
        aux: for losses and pictures.
    """

    bev_lidar: Tensor
    bev: Tensor
    maps: list[Tensor]
    tokens: CameraTokens | None
    calibration: Calibration
    weight: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ActiveCells:
    """The cells that ask the cameras: index (V, K) int64 into H x W, None for all of them in order; score (V, K) that their
    update is multiplied with, None for 1; logits (V, 1, H, W) of the centre heatmap, None where there is none."""

    index: Tensor | None
    score: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class Reading:
    """What K cells read: features (V, K, D), and trust (V, K, 1) in 0..1, exactly 0 for a cell that no valid camera sees."""

    features: Tensor
    trust: Tensor


def normalised(positions_m: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """(..., 2) x and y in metres -> the same from -1 to 1 over the range."""
    axes = zip(positions_m.unbind(-1), point_cloud_range[:2], point_cloud_range[3:5])
    return torch.stack([2 * (position - low) / (high - low) - 1 for position, low, high in axes], dim=-1)


def shown_cells(calibration: Calibration, level_shape: Sequence[int], stride: float) -> Tensor | None:
    """(V, N, h, w) bool: the cells of a level (..., h, w) that show an image, not what pads it to the largest nor a camera that
    is not there; None where all do, which the host knows."""
    height, width = level_shape[-2:]
    facts = calibration.facts
    tables = ((height, facts.img_height), (width, facts.img_width))
    whole = all(-(-side // stride) >= count for count, table in tables for row in table for side in row)
    if whole and all(map(all, facts.cam_valid)):
        return None
    filled = (calibration.img_hw / stride).ceil()
    rows, columns = (torch.arange(count, device=filled.device) < cells[..., None]
                     for count, cells in zip((height, width), filled.unbind(-1)))
    return rows[..., :, None] & columns[..., None, :] & calibration.cam_valid[..., None, None]


def check_kind(stage: str, kind: str, kinds: tuple[str, ...]) -> None:
    """Raises ValueError naming the stage where `kind` is none of its kinds."""
    if kind not in kinds:
        raise ValueError(f'fusion_layer.{stage}.kind must be one of {", ".join(kinds)}, got {kind!r}')
