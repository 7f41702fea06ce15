"""Spatial: geometry sources. In: poses and depth of a data set, or a network's file. Out: geometry of the frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .source import (
    Geometry,
    describe_cameras,
    in_first_camera,
    needs_file,
    patch_means,
    poses_of,
    register_source,
    unproject,
)


@register_source
class PosedFrames:
    """Cameras of the data set; the camera's token is its pose relative to the first frame's, and its K.

    Args:
        points: also tokens, the mean world point of each patch in the first camera's frame and how much of the patch has depth
            (4 numbers), from depth maps, or from world points where a network gave them.
        scale: what lengths in tokens are multiplied by.
        intrinsics: whether K is used, and needed; without it a camera's token has 12 numbers and not 16.

    Raises:
        ValueError: points without intrinsics.
    """

    def __init__(self, points: bool = False, scale: float = 1 / 3, intrinsics: bool = True) -> None:
        if points and not intrinsics:
            raise ValueError('PosedFrames: points=True needs intrinsics=True: depth is unprojected by K')
        self.points, self.scale, self.intrinsics = points, scale, intrinsics
        wanted = dict(world_from_cam=True, intrinsics=intrinsics, depth=points)
        self.needs: tuple[str, ...] = tuple(name for name, is_wanted in wanted.items() if is_wanted)

    def __call__(self, frames: Tensor, known: Any, grid_hw: tuple[int, int]) -> Geometry:
        """See GeometrySource."""
        poses = poses_of(needs_file(known, lambda file: file if file.world_from_cam is not None else None, 'world_from_cam'),
                         self.intrinsics)
        camera = describe_cameras(poses)
        camera[:, [3, 7, 11]] *= self.scale
        if not self.points:
            return Geometry(poses, camera=camera)
        depth = torch.from_numpy(needs_file(known, lambda file: file.depth, 'depth')).float()
        seen = unproject(depth, poses)
        there = (depth > 0) & depth.isfinite()
        near = torch.where(there[..., None], in_first_camera(seen, poses) * self.scale, 0)
        tokens = patch_means(near.float(), there.float(), grid_hw)
        return Geometry(poses, tokens, camera, seen, there.float())


@register_source
class PrecomputedGeometry:
    """What a network (VGGT, Depth Anything 3, a SLAM system) left in the npz file beside the video (docs/spatial_mllm.md).

    Args:
        poses: whether its cameras are used, and needed, with K.
    """

    def __init__(self, poses: bool = True) -> None:
        self.poses = poses
        self.needs: tuple[str, ...] = ('tokens', *(('world_from_cam', 'intrinsics') if poses else ()))

    def __call__(self, frames: Tensor, known: Any, grid_hw: tuple[int, int]) -> Geometry:
        """See GeometrySource.

        Raises:
            ValueError: naming the file: its tokens are of another number of patches.
        """
        tokens = torch.from_numpy(needs_file(known, lambda file: file.tokens, 'tokens')).float()
        if tokens.shape[1] != grid_hw[0] * grid_hw[1]:
            raise ValueError(f'{known.name}: tokens of {tokens.shape[1]} patches a frame, the frames are seen in '
                             f'{grid_hw[0]} x {grid_hw[1]}: make them from frames of the same size')
        poses = poses_of(known) if self.poses else None
        points, confidence = (None if part is None else torch.from_numpy(part) for part in (known.world_points, known.conf))
        return Geometry(poses, tokens, None if poses is None else describe_cameras(poses), points, confidence)
