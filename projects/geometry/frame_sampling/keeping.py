"""Geometry, frame sampling. Online: frames come one by one, few are kept. In: what is kept and the newest. Out: who goes.

The samplers of a whole video, one frame at a time and without looking ahead: when memory is full, the frame goes without
which least is lost. Everything is batched tensors on the device, and no host waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projects.geometry.bev_grid import cell_positions, move_positions
from projects.geometry.rigid import invert_affine

from .registry import FRAME_KEEPERS


@dataclass(frozen=True)
class KeptFrames:
    """What a memory of F frames holds, with the newest frame behind it: N = F + 1 frames of B scenes, oldest first.

    Attributes:
        valid: (B, N) bool, False for an empty slot; the newest is always there.
        time_s: (B, N) float64 stamps.
        global_from_bev: (B, N, 4, 4) float64 poses.
        cells: (B, N, H, W) bool, cells of a frame's own map from above that it has something to say about.
        map_range: (x_min, y_min, z_min, x_max, y_max, z_max) of the maps, metres.
    """

    valid: Tensor
    time_s: Tensor
    global_from_bev: Tensor
    cells: Tensor
    map_range: Sequence[float]

    def distance_m(self) -> Tensor:
        """(B, N, N) between the frames' centres."""
        centre = self.global_from_bev[..., :3, 3]
        return (centre[:, :, None] - centre[:, None]).norm(dim=-1)


class FrameKeeper:
    """Base: which frame leaves a full memory. Empty slots go first, then frames out of reach, then what costs least.

    The newest frame stays; of equals the oldest goes.

    Args:
        reach_m: frames farther than this from the newest are of no more use. None is the longer side of the map: beyond it
            two maps seen from the same direction do not touch.
        theta0_deg: between poses, an angle of this counts as much as `scale_m`.
        scale_m: metres.
    """

    def __init__(self, reach_m: float | None = None, theta0_deg: float = 30.0, scale_m: float = 10.0) -> None:
        if not ((reach_m is None or reach_m > 0) and theta0_deg > 0 and scale_m > 0):
            raise ValueError('reach_m (unless it is None), theta0_deg and scale_m of a frame keeper must be positive, got '
                             f'{reach_m}, {theta0_deg} and {scale_m}')
        self.reach_m, self.theta0_deg, self.scale_m = reach_m, theta0_deg, scale_m

    def keep(self, frames: KeptFrames) -> Tensor:
        """(B, F) int64, ascending: places among the N frames of those that stay."""
        x_min, y_min, _, x_max, y_max, _ = frames.map_range
        reach_m = max(x_max - x_min, y_max - y_min) if self.reach_m is None else self.reach_m
        near = frames.valid & (frames.distance_m()[:, -1] <= reach_m)
        cost = self.cost(frames, near).masked_fill(~near, -1.0).masked_fill(~frames.valid, -2.0)
        goes = cost[:, :-1].argmin(dim=1, keepdim=True)
        place = torch.arange(cost.shape[1] - 1, device=cost.device)
        return place + (place >= goes)

    def cost(self, frames: KeptFrames, near: Tensor) -> Tensor:
        """(B, N) float64, 0 or more: what is lost without each frame, where the `near` ones (B, N) stay."""
        raise NotImplementedError

    def to_nearest(self, frames: KeptFrames, near: Tensor) -> Tensor:
        """(B, N) float64, how far each pose is from the nearest other one that is `near`; infinite where there is none."""
        rotation = frames.global_from_bev[..., :3, :3].flatten(2)
        # As in pose_distance: sqrt(8) times the sine of half the angle.
        sine = (rotation[:, :, None] - rotation[:, None]).norm(dim=-1) / 8 ** 0.5
        angle_deg = torch.rad2deg(2 * sine.clamp(max=1.0).asin())
        itself = torch.eye(near.shape[1], dtype=torch.bool, device=near.device)
        apart = angle_deg / self.theta0_deg + frames.distance_m() / self.scale_m
        return apart.masked_fill(itself | ~near[:, None], torch.inf).amin(dim=2)


@FRAME_KEEPERS.register_module('uniform')
class UniformKeeper(FrameKeeper):
    """Evenly spread in time from the oldest frame in reach on: the frame goes that leaves the shortest gap.

    Args:
        reach_m: as of FrameKeeper.
    """

    def __init__(self, reach_m: float | None = None) -> None:
        super().__init__(reach_m)

    def cost(self, frames: KeptFrames, near: Tensor) -> Tensor:
        """See FrameKeeper."""
        gap_s = frames.time_s[:, 2:] - frames.time_s[:, :-2]
        ends = torch.full_like(gap_s[:, :1], torch.inf)
        has_older = torch.cat([torch.zeros_like(near[:, :1]), near[:, :-1].cummax(dim=1).values], dim=1)
        return torch.cat([ends, gap_s, ends], dim=1).masked_fill(~has_older, torch.inf)


@FRAME_KEEPERS.register_module('fps')
class FarthestPoseKeeper(FrameKeeper):
    """k-centre: the frame goes that is nearest to another one, d = angle / theta0 + distance / scale."""

    def cost(self, frames: KeptFrames, near: Tensor) -> Tensor:
        """See FrameKeeper."""
        return self.to_nearest(frames, near)


@FRAME_KEEPERS.register_module('sa')
class SpaceAwareKeeper(FrameKeeper):
    """Coverage: the frame goes that alone has seen least, counted in cells of its own map; of equals the nearest to another."""

    def cost(self, frames: KeptFrames, near: Tensor) -> Tensor:
        """See FrameKeeper."""
        return _seen_alone(frames, near) + 1 - 1 / (1 + self.to_nearest(frames, near))


def _seen_alone(frames: KeptFrames, near: Tensor) -> Tensor:
    """(B, N) float64, whole numbers: cells of each frame that no other of the `near` frames has anything to say about."""
    batch, number, height, width = frames.cells.shape
    x_min, y_min, _, x_max, y_max, _ = frames.map_range
    centers = cell_positions((height, width), frames.map_range, frames.cells.device)
    pose = frames.global_from_bev
    other_from_own = (invert_affine(pose)[:, None] @ pose[:, :, None]).flatten(0, 2)  # (B N own N other, 4, 4)
    x, y = move_positions(centers.expand(len(other_from_own), -1, -1, -1), other_from_own).unbind(-1)
    column = ((x - x_min) * (width / (x_max - x_min))).floor()
    row = ((y - y_min) * (height / (y_max - y_min))).floor()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().view(batch, number, number, -1)
    there = (frames.cells & near[..., None, None]).flatten(2)
    other = there[:, None].expand(-1, number, -1, -1).gather(3, cell) & inside.view_as(cell)
    itself = torch.eye(number, dtype=torch.bool, device=there.device)[:, :, None]
    return (there & ~(other & ~itself).any(dim=2)).sum(dim=2, dtype=torch.float64)
