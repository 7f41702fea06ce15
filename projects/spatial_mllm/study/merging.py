"""Spatial: study. In: rooms of 2 K frames. Out: as seen where a token is of two frames: K steps, and their tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from projects.spatial_mllm.model.poses import FramePoses, merge_poses
from projects.spatial_mllm.study.data import Rooms
from projects.spatial_mllm.study.tower import look_at


def merged(rooms: Rooms, how: str, look: Callable[[Tensor, Tensor], Tensor]) -> tuple[Rooms, Tensor]:
    """Rooms with a step for each pair of frames, and the tower's tokens (R, K * c, D), not whitened.

    Args:
        rooms: with an even number of frames.
        how: 'first' or 'midpoint': tokens of both frames, with that pose; 'second': every second frame alone, seen twice;
            'duplicate': every frame is a step of its own, seen twice (2 K of them).
        look: the tower.

    What the rows of geometry say of a pair is what they say of its first frame.
    """
    if how == 'duplicate':
        return rooms, look_at(look, rooms.frames)
    steps, cells = rooms.there.shape[1] // 2, rooms.there.shape[2]
    pairs = rooms.frames.reshape(len(rooms), steps, 2, *rooms.frames.shape[2:])
    videos = np.repeat(pairs[:, :, :1], 2, axis=2) if how == 'second' else pairs
    poses = [merge_poses(FramePoses(*own), 'first' if how == 'second' else how)
             for own in zip(rooms.poses.cam_from_world, _intrinsics(rooms))]
    kept = (torch.arange(0, 2 * steps, 2)[:, None] * cells + torch.arange(cells)).flatten()
    half = replace(rooms, frames=pairs[:, :, 0], there=rooms.there[:, ::2], place=rooms.place[:, ::2],
                   poses=FramePoses(torch.stack([one.cam_from_world for one in poses]),
                                    torch.stack([one.img_from_cam for one in poses if one.img_from_cam is not None])),
                   points=rooms.points[:, kept], camera=rooms.camera[:, ::2], chosen={})
    return half, look_at(look, videos)


def _intrinsics(rooms: Rooms) -> Tensor:
    if rooms.poses.img_from_cam is None:
        raise ValueError('rooms without intrinsics cannot be merged')
    return rooms.poses.img_from_cam
