"""Spatial: model. In: camera poses of a video's frames. Out: one pose for each grid step, and the views of all tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.encodings import Views
from projects.geometry.rigid import invert_rigid, rotation_angle_rad, skew

POSE_MERGES = ('first', 'midpoint', 'duplicate')
"""What a token of two frames gets: the first's pose, the one half-way, or each frame becomes a token of its own, seen twice."""


@dataclass(frozen=True, eq=False)
class FramePoses:
    """Cameras of F frames.

    Attributes:
        cam_from_world: (F, 4, 4), OpenCV camera.
        img_from_cam: (F, 3, 3) normalised K, of an image 1 high and 1 wide; None without.
    """

    cam_from_world: Tensor
    img_from_cam: Tensor | None = None

    def relative(self) -> FramePoses:
        """The first camera becomes the world, in float64: tokens without a pose see as it does."""
        pose = self.cam_from_world.double()
        return replace(self, cam_from_world=pose @ invert_rigid(pose[:1]))


def unit_intrinsics(img_from_cam: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(..., 3, 3) K in pixels of an image of this height and width -> of the same image 1 high and 1 wide, float64."""
    height, width = image_hw
    return img_from_cam.double() / img_from_cam.new_tensor([width, height, 1], dtype=torch.float64)[:, None]


def merge_poses(poses: FramePoses, merge: str, temporal: int = 2) -> FramePoses:
    """Poses of F frames -> of ceil(F / temporal) grid steps; the last frame is repeated, as its pixels are.

    Args:
        poses: of the frames that the model sees, in order.
        merge: of POSE_MERGES; 'duplicate' expects frames that were repeated before (each `temporal` times).
        temporal: frames of a token, 1 or 2.

    Raises:
        ValueError: for another merge or number.
    """
    if merge not in POSE_MERGES:
        raise ValueError(f'pose_merge={merge!r}: must be one of {", ".join(POSE_MERGES)}')
    if temporal not in (1, 2):
        raise ValueError(f'poses of {temporal} frames cannot be merged into one; 1 or 2 can')
    first = FramePoses(poses.cam_from_world[::temporal], None if poses.img_from_cam is None else poses.img_from_cam[::temporal])
    if merge != 'midpoint' or temporal == 1:
        return first
    last = torch.arange(len(poses.cam_from_world))[1::2].tolist() + [-1] * (len(poses.cam_from_world) % 2)
    second = poses.cam_from_world[last]
    intrinsics = None if first.img_from_cam is None or poses.img_from_cam is None else (
        first.img_from_cam + poses.img_from_cam[last]) / 2
    return FramePoses(midpoint(first.cam_from_world, second), intrinsics)


def midpoint(first: Tensor, second: Tensor) -> Tensor:
    """Half-way between poses (..., 4, 4) cam_from_world: half the turn, the middle of the camera centres.

    Float64. Opposite views (a turn of pi) have no single middle; one of them is taken.
    """
    first, second = first.double(), second.double()
    turn = second[..., :3, :3] @ first[..., :3, :3].transpose(-1, -2)
    rotation = half_turn(turn) @ first[..., :3, :3]
    centers = (invert_rigid(first)[..., :3, 3:] + invert_rigid(second)[..., :3, 3:]) / 2
    upper = torch.cat([rotation, -rotation @ centers], dim=-1)
    return torch.cat([upper, first[..., 3:, :]], dim=-2)


def half_turn(rotation: Tensor) -> Tensor:
    """(..., 3, 3) -> the rotation about the same axis by half the angle, so that it squared is `rotation`."""
    angle = rotation_angle_rad(rotation)
    odd = (rotation - rotation.transpose(-1, -2)) / 2  # sin(angle) skew(axis)
    symmetric = (rotation + rotation.transpose(-1, -2)) / 2 + torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    column = symmetric.square().sum(-2).argmax(-1, keepdim=True)[..., None].expand(*rotation.shape[:-1], 1)
    axis = symmetric.gather(-1, column)[..., 0]  # at pi, where `odd` is 0, columns of R + 1 point along the axis
    at_pi = skew(axis / axis.norm(dim=-1, keepdim=True))
    sine = angle.sin()[..., None, None]
    generator = torch.where((angle > torch.pi - 1e-6)[..., None, None], at_pi, odd / sine.clamp(min=1e-12))
    half = (angle / 2)[..., None, None]
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return eye + half.sin() * generator + (1 - half.cos()) * (generator @ generator)


@dataclass(frozen=True, eq=False)
class Scene:
    """What the model is told beside pixels, of a whole batch; S grid steps of all its videos, in the order of their tokens.

    Attributes:
        step_of_token: (B, n) int64, the grid step of each token, -1 for text and images.
        poses: of the S steps, each video's relative to its first camera; None without poses.
        geometry: (M, C) packed rows of a geometry encoder (`pack_tokens`), one for each video token; None without.
        camera: (S, C) what is known of each step's camera; None without.
    """

    step_of_token: Tensor
    poses: FramePoses | None = None
    geometry: Tensor | None = None
    camera: Tensor | None = None

    def to(self, device: torch.device | str) -> Scene:
        """The same on another device; types stay."""
        return _moved(self, device)

    def longer(self, tokens: int) -> Scene:
        """The same with so many tokens of text behind each row."""
        return replace(self, step_of_token=F.pad(self.step_of_token, (0, tokens), value=-1))

    def views(self) -> Views:
        """Of every token of every row; text, images and padding are unposed.

        Raises:
            ValueError: there are no poses.
        """
        if self.poses is None:
            raise ValueError('the model takes poses into its attention, but this scene has none: give Scene.poses, or load the '
                             'model without spatial.pose')
        place = self.step_of_token + 1
        eye = torch.eye(4, dtype=torch.float64, device=place.device)[None]
        pose = torch.cat([eye, self.poses.cam_from_world.double()])[place]
        intrinsics = None
        if self.poses.img_from_cam is not None:
            intrinsics = torch.cat([eye[:, :3, :3], self.poses.img_from_cam.double()])[place]
        return Views(pose, intrinsics, None if intrinsics is None else (1, 1), per='token', posed=place > 0, validate=False)


def _moved(value: Any, device: torch.device | str) -> Any:
    moved = {field.name: getattr(value, field.name) for field in fields(value)}
    for name, part in moved.items():
        if part is not None:
            moved[name] = part.to(device) if isinstance(part, Tensor) else _moved(part, device)
    return type(value)(**moved)
