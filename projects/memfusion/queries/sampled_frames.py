"""Queries. In: features of now and of earlier frames. Out: where the cameras of each of T frames see given points of now.

SparseBEV (Liu et al., ICCV 2023): points of a moving box stood elsewhere when an earlier frame was taken, by its velocity; the
rigs of earlier frames come as seen from now, so that the ego's own motion is in them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from projects.geometry.precision import full_precision
from projects.memfusion.structures import PastFrame, Readout, SceneFeatures

from .map_reading import MapPoints, limit_views

NEAREST_M = 1e-5
"""Published: what is less far in front of a camera has no pixel."""
FAR_PX = -1e4
"""Where points without a pixel lie: outside of any image."""


def frames_of(features: SceneFeatures, readout: Readout, num_frames: int,
              quirks: Collection[str] = ()) -> tuple[PastFrame, ...]:
    """The current frame, age 0, and those before it, newest first: T = num_frames.

    Args:
        features: of now, with levels and rig.
        readout: with `past` where more than one frame is asked for.
        num_frames: T.
        quirks: 'repeated_frames': in place of a frame that is not there the oldest that is.

    Raises:
        ValueError: where there are no images, or another number of earlier frames than asked for.
    """
    if features.levels is None or features.calibration is None:
        raise ValueError('pts_bbox_head.inputs.num_frames asks for images, but the frames have none: set model.img_backbone, '
                         'or pts_bbox_head.inputs.num_frames=0 to read LiDAR features alone')
    batch = features.batch_size
    ages_s = features.levels[0].new_zeros(batch, dtype=torch.float64)
    now = PastFrame(features.levels, features.calibration, ages_s, (True,) * batch)
    past = () if readout.past is None else readout.past.frames()
    if 1 + len(past) != num_frames:
        wanted = f"dict(type='FrameRing', num_frames={num_frames})" if num_frames > 1 else 'None'
        raise ValueError(f'pts_bbox_head.inputs.num_frames={num_frames}, but the memory gives {len(past)} earlier frames: set '
                         f'model.temporal={wanted}, or pts_bbox_head.inputs.num_frames={1 + len(past)}')
    frames = (now, *past)
    return _repeated(frames) if 'repeated_frames' in quirks else frames


@full_precision
def time_gaps(frames: Sequence[PastFrame], quirks: Collection[str] = ()) -> Tensor:
    """(B, T) float32 seconds that each frame was taken before now; 0 for frames that are not there.

    Args:
        quirks: 'camera_stamps': mean over the cameras of the images' stamps, where they are known; else stamps of the LiDAR
            frames.
    """
    ages = torch.stack([frame.age_s for frame in frames], dim=1).float()
    if 'camera_stamps' not in quirks:
        return ages
    stamps = torch.stack([frame.calibration.t_cam for frame in frames], dim=1)  # (B, T, N)
    there = torch.stack([frame.calibration.cam_valid for frame in frames], dim=1)
    there = there & there[:, :1]
    gaps = torch.where(there, stamps[:, :1] - stamps, 0.0).sum(-1) / there.sum(-1).clamp(min=1)
    return torch.where(gaps.isnan(), ages, gaps).float()


@full_precision
def project_points(frame: PastFrame, points_m: Tensor, quirks: Collection[str] = ()) -> tuple[Tensor, Tensor, Tensor]:
    """(B, P, 3) -> uv_px (B, N, P, 2), depth_m and seen (B, N, P): the network pixels of every camera, finite.

    Args:
        frame: with its rig in the coordinates of now.
        points_m: augmented LiDAR frame of now, where they stood at the frame's time.
        quirks: 'image_bounds', see SparseBEVHead.
    """
    rig = frame.calibration
    if 'image_bounds' not in quirks:
        return rig.project(points_m)
    uv_px, depth_m, has_pixel = rig.project_cam(rig.to_cam(points_m), NEAREST_M)
    height, width = rig.views().padded_hw
    inside = (uv_px > 0).all(-1) & (uv_px[..., 0] < width) & (uv_px[..., 1] < height)
    return torch.where(has_pixel[..., None], uv_px, FAR_PX), depth_m, has_pixel & inside


@full_precision
def seen_points(frame: PastFrame, points_m: Tensor, weights: Tensor, views_per_point: int,
                quirks: Collection[str] = ()) -> MapPoints:
    """Where the cameras of a frame see points, and which of the cameras count.

    Args:
        frame, quirks: as in project_points, and 'first_view', 'unmasked_points', 'align_corners'.
        points_m: (B, Q, G, P, 3), otherwise as there.
        weights: (B, Q, G, P, L) of the levels.
        views_per_point: how many cameras at most a point is read in.
    """
    uv_px, _, seen = project_points(frame, points_m.flatten(1, 3), quirks)
    seen = limit_views(seen, 1 if 'first_view' in quirks else views_per_point)
    unmasked = 'unmasked_points' in quirks
    if unmasked:
        seen = torch.cat([seen[:, :1] | ~seen.any(1, keepdim=True), seen[:, 1:]], dim=1)
    rig, shape = frame.calibration, points_m.shape[1:4]
    return MapPoints(
        frame.levels, uv_px.unflatten(2, shape), seen.unflatten(2, shape), weights, rig.views().padded_hw, rig.img_hw,
        corners='align_corners' in quirks, faded=unmasked)


def _repeated(frames: tuple[PastFrame, ...]) -> tuple[PastFrame, ...]:
    """The same, and where a frame is not there the last one that is."""
    out = [frames[0]]
    for frame in frames[1:]:
        absent = [row for row, there in enumerate(frame.there) if not there]
        if absent:
            rows = len(frame.there)
            frame = PastFrame.cat([frame, out[-1]]).take([rows + row if row in absent else row for row in range(rows)])
        out.append(frame)
    return tuple(out)
