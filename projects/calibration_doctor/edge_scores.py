"""Doctor. In: LiDAR edges and image edges of some frames of one camera, a grid of faults. Out: how well each fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from projects.memfusion.structures.calibration import Calibration

from .hypotheses import Grid, hypothesis_matrices
from .image_edges import ImageEdges
from .lidar_edges import KINDS, LidarEdges

Floats = npt.NDArray[np.float64]
_KIND_WEIGHTS = dict(side=1.0, top=0.5, paint=1.0)
_MAP_OF = dict(side=0, top=1, paint=2)  # upright, level, the stronger of both
_BLOCK_DEG = 1.5  # edges of one kind within such a wedge belong to one object: they count as one witness
_VIEW_MARGIN_DEG = 3.2
_CHUNK = 1 << 20


@dataclass(frozen=True)
class CameraFrameEvidence:
    """What one camera and the LiDAR saw in one frame.

    Attributes:
        edges: in the LiDAR frame.
        image_edges: of the camera.
        calibration: B = N = 1, as in the file.
        velocity: (6,) of the LiDAR in its own frame, m/s and rad/s.
        lag_s: LiDAR stamp less camera stamp; what moves has moved in between.
        turn_s: how long a turn of the LiDAR takes, 0 where not known.
        blind_deg: how far what moves may mislead: half the angle between rays if no annotation says what moves, else 0.
    """

    edges: LidarEdges
    image_edges: ImageEdges
    calibration: Calibration
    velocity: Floats
    lag_s: float
    turn_s: float
    blind_deg: float


@dataclass(frozen=True)
class Witnesses:
    """values (W, *grid.shape) float32: what each witness says about each hypothesis."""

    grid: Grid
    values: npt.NDArray[np.float32]


def ask_witnesses(frames: Sequence[CameraFrameEvidence], grid: Grid, center: bool = True) -> Witnesses:
    """Scores every hypothesis by the image edge strength at the projected LiDAR edges, one row per witness.

    Args:
        center: take each witness' mean over the grid away, so that only where it points to counts, not how strongly its
            surroundings are structured.
    """
    parts = [_ask_frame(frame, grid) for frame in frames]
    values = np.concatenate(parts) if parts else np.zeros((0, int(np.prod(grid.shape))), dtype=np.float32)
    if center:
        values = values - values.mean(axis=1, keepdims=True)
    return Witnesses(grid, values.reshape(-1, *grid.shape))


def _ask_frame(frame: CameraFrameEvidence, grid: Grid) -> npt.NDArray[np.float32]:
    calibration = frame.calibration
    index, kind, weight, block = _seen_edges(frame)
    if not len(index):
        return np.zeros((0, int(np.prod(grid.shape))), dtype=np.float32)
    points, velocity = (values[index].T.astype(np.float32) for values in (frame.edges.points_m, frame.edges.velocity_m_s))
    age_s = frame.edges.age_s[index].astype(np.float32)
    _, first, count = np.unique(block, return_index=True, return_counts=True)
    weight = weight / np.sqrt(np.repeat(count, count))  # block is sorted
    cam_from_lidar = calibration.cam_from_bev[0, 0].numpy()
    matrices = hypothesis_matrices(grid, cam_from_lidar, frame.velocity).astype(np.float32)
    waits_s = (grid.rows()[:, 3] / 1e3 - frame.lag_s).astype(np.float32)
    edges = frame.image_edges
    maps = np.pad(np.stack([edges.upright, edges.level, np.maximum(edges.upright, edges.level)]), ((0, 0), (1, 1), (1, 1)))
    parts = []
    step = max(1, _CHUNK // len(index))
    for start in range(0, len(matrices), step):
        chosen = matrices[start:start + step]
        wait_s = waits_s[start:start + step, None, None] + age_s
        moved = points + velocity * wait_s if velocity.any() else points
        in_cam = chosen[:, :, :3] @ moved + chosen[:, :, 3:]  # (g, 3, P)
        flat = torch.from_numpy(np.ascontiguousarray(in_cam.transpose(0, 2, 1))).reshape(1, 1, -1, 3)
        uv_px, _, has_pixel = calibration.project_cam(flat)
        cell = np.rint((uv_px[0, 0].numpy() + 0.5) * edges.scale - 0.5)
        column = np.clip(cell[:, 0], -1, maps.shape[2] - 2).astype(np.int64) + 1
        row = np.clip(cell[:, 1], -1, maps.shape[1] - 2).astype(np.int64) + 1
        found = maps[np.tile(kind, len(chosen)), row, column] * has_pixel[0, 0].numpy()
        parts.append(np.add.reduceat(found.reshape(len(chosen), -1) * weight.astype(np.float32), first, axis=1))
    return np.asarray(np.concatenate(parts).T, dtype=np.float32)


def _seen_edges(frame: CameraFrameEvidence,
                ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats, npt.NDArray[np.int64]]:
    """Positions (P,), map, weight and wedge of the edges in or near the image, sorted by wedge."""
    calibration, edges = frame.calibration, frame.edges
    kind_weights = np.array([_KIND_WEIGHTS[kind] for kind in KINDS])
    in_cam = calibration.to_cam(torch.from_numpy(edges.points_m)[None])
    uv_px, depth_m, has_pixel = (value[0, 0].numpy() for value in calibration.project_cam(in_cam))
    height, width = calibration.img_hw[0, 0].tolist()
    margin = float(calibration.img_from_cam[0, 0, 0, 0]) * np.tan(np.radians(_VIEW_MARGIN_DEG))
    near = ((uv_px > -margin) & (uv_px < np.array([width, height]) + margin)).all(axis=1)
    chosen = np.flatnonzero(near & has_pixel & (depth_m > 1.0))
    in_cam_m = in_cam[0, 0].numpy()[chosen]
    wedge = np.rint(np.degrees(np.arctan2(in_cam_m[:, 0], in_cam_m[:, 2])) / _BLOCK_DEG).astype(np.int64)
    block = wedge * len(KINDS) + edges.kind[chosen]
    order = np.argsort(block, kind='stable')
    chosen, block = chosen[order], block[order]
    maps = np.array([_MAP_OF[kind] for kind in KINDS])[edges.kind[chosen]]
    return chosen, maps, (edges.weight * kind_weights[edges.kind])[chosen], block
