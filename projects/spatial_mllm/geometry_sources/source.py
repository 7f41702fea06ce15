"""Spatial: geometry sources. In: frames of a clip, what is known of them. Out: tokens, cameras, world points of each.

World points of a network are those of one run: their frame and their unit mean nothing beyond it, and they are not metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from projects.geometry.rigid import transform_points
from projects.spatial_mllm.model.poses import FramePoses, unit_intrinsics

SOURCES: dict[str, Callable[..., GeometrySource]] = {}
"""What a config's `type` may name; `register_source` fills it."""
Source = TypeVar('Source', bound=type)
Known = Any
"""readers.geometry_file.VideoGeometry of the frames, or None."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Of F frames; None is what a source does not know.

    Attributes:
        poses: cameras, K normalised.
        tokens: (F, h * w, C) of each patch, row by row, without special tokens.
        camera: (F, C) of each frame's camera.
        world_points: (F, h, w, 3); confidence: (F, h, w).
    """

    poses: FramePoses | None = None
    tokens: Tensor | None = None
    camera: Tensor | None = None
    world_points: Tensor | None = None
    confidence: Tensor | None = None


class GeometrySource(Protocol):
    """What turns frames into geometry. `needs`: arrays that the file beside the video must hold."""

    needs: tuple[str, ...]

    def __call__(self, frames: Tensor, known: Known, grid_hw: tuple[int, int]) -> Geometry:
        """Frames (F, H, W, 3) uint8 RGB as the model sees them, in patches of `grid_hw` -> what is known of them."""


def build_source(cfg: Mapping[str, Any] | None) -> GeometrySource | None:
    """The source of a config (`type` and what it takes); None without one.

    Raises:
        ValueError: for another type.
    """
    if cfg is None:
        return None
    from . import files, networks  # noqa: F401 (both register theirs; they stand on this file)
    settings = dict(cfg)
    kind = settings.pop('type', None)
    if kind not in SOURCES:
        raise ValueError(f'geometry.type must be one of {", ".join(sorted(SOURCES))}, got {kind!r}')
    return SOURCES[kind](**settings)


def register_source(kind: Source) -> Source:
    """A decorator: the class becomes a `type` under its name."""
    SOURCES[kind.__name__] = kind
    return kind


def poses_of(known: Known, with_intrinsics: bool = True) -> FramePoses:
    """Cameras of a geometry file, whose pixels are counted from centres; ValueError where it has no poses, or K is missing."""
    intrinsics = None
    if with_intrinsics:
        needs_file(known, lambda file: file.intrinsics, 'intrinsics')
        corner = torch.from_numpy(known.intrinsics).clone()
        corner[:, :2, 2] += 0.5
        intrinsics = unit_intrinsics(corner, known.image_hw)
    return FramePoses(torch.from_numpy(np.ascontiguousarray(known.cam_from_world)), intrinsics)


def unproject(depth: Tensor, poses: FramePoses) -> Tensor:
    """Depth (F, h, w) along z and cameras with K -> world points (F, h, w, 3).

    Raises:
        ValueError: there is no K.
    """
    if poses.img_from_cam is None:
        raise ValueError('world points need intrinsics beside depth and poses')
    height, width = depth.shape[1:]
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing='ij')
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).double().flatten(0, 1)
    rays = pixels @ torch.linalg.inv(poses.img_from_cam.double()).transpose(-1, -2)
    points = transform_points(torch.linalg.inv(poses.cam_from_world.double()), rays * depth.double().flatten(1)[..., None])
    return points.unflatten(1, (height, width))


def patch_means(points: Tensor, weights: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Points (F, h, w, 3) and weights (F, h, w) -> (F, patches, 4): weighted mean of each patch, and its share of weight."""
    maps = torch.cat([points * weights[..., None], weights[..., None]], dim=-1).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(maps, grid_hw)
    share = pooled[:, 3:]
    means = torch.cat([pooled[:, :3] / share.clamp(min=1e-6), share], dim=1)
    return torch.where(share > 0, means, torch.zeros_like(means)).flatten(2).transpose(1, 2)


def in_first_camera(points: Tensor, poses: FramePoses) -> Tensor:
    """World points (F, h, w, 3) seen from the first camera."""
    return transform_points(poses.cam_from_world[:1].double(), points.double().flatten(1, 2)).unflatten(1, points.shape[1:3])


def describe_cameras(poses: FramePoses) -> Tensor:
    """(F, 12) rows of each pose relative to the first, and with K (F, 16) also its focal lengths and middle."""
    relative = poses.relative().cam_from_world[:, :3].flatten(1)
    if poses.img_from_cam is None:
        return relative.float()
    matrix = poses.img_from_cam
    return torch.cat([relative, matrix[:, [0, 1, 0, 1], [0, 1, 2, 2]].double()], dim=1).float()


def needs_file(known: Known, what: Callable[[Known], Any], name: str) -> Any:
    """A part of what is known; ValueError naming what is missing and where."""
    value = None if known is None else what(known)
    if value is None:
        raise ValueError(f'{"there is no geometry file beside the video" if known is None else known.name}: {name} missing')
    return value
