"""Encodings. In: poses, intrinsics, patch grids, times. Out: where the tokens of one side of an attention look from.

Cameras are OpenCV's (x right, y down, z forward). Pixels are counted from the image's corner: an image of width W goes from 0
to W, so that resizing an image with its K changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .poses import pad_affine
from .view_checks import check_shapes, check_values


@dataclass(frozen=True, eq=False)
class Views:
    """Of B samples.

    Attributes:
        cam_from_world: (B, N, 4, 4), rotation (or any affine map) and translation of N cameras, or of N tokens.
        img_from_cam: (B, N, 3, 3), K in pixels, also padded to (B, N, 4, 4). (B, N, 4, 4) without image_hw is an affine map of
            the camera frame in metres that is used as it is, e.g. of a bird's-eye cell. None leaves K out.
        image_hw: height and width, pixels, of what the patch grid covers: the padded image.
        grid: rows and columns of patches of each camera; tokens run camera by camera, then row by row. With per='token' also a
            (B or 1, N, 2) tensor of y and x, or (B or 1, N, 4) of y, x, rows, columns. None: no places in an image.
        time: (B or 1, N); integers are indices, other numbers seconds.
        per: 'camera' or 'token', what N counts.
        posed: (B or 1, N) bool, which have a pose; the others see as the reference camera of the encoding does. None is all.
        validate: whether values are looked at, where they lie on the host; where they do not, one would have to wait for them.

    Raises:
        ValueError: for shapes that do not fit, and with `validate` for a pose or K that is singular, or K of another image
            size; it names the camera.
    """

    cam_from_world: Tensor
    img_from_cam: Tensor | None = None
    image_hw: tuple[int, int] | None = None
    grid: tuple[int, int] | Tensor | None = None
    time: Tensor | None = None
    per: str = 'camera'
    posed: Tensor | None = None
    validate: bool = True

    def __post_init__(self) -> None:
        for name in ('image_hw', 'grid'):  # lists, as configs that were written as text have them
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        check_shapes(self)
        if self.validate and self.cam_from_world.device.type == 'cpu' and not torch.compiler.is_compiling():
            check_values(self)

    @property
    def count(self) -> int:
        """N."""
        return self.cam_from_world.shape[1]

    def tokens_each(self, tokens: int, name: str) -> int:
        """How many tokens each of N has, where there are so many in all.

        Raises:
            ValueError: where that is not what cameras and grid make; `name` says whose tokens.
        """
        if self.per == 'token' or isinstance(self.grid, tuple):
            each = 1 if self.per == 'token' else math.prod(self.grid)  # type: ignore[arg-type]
            if each * self.count != tokens:
                what = f'{self.count} tokens' if self.per == 'token' else (
                    f'{self.count} cameras with a grid of {self.grid} patches, which are {each * self.count} tokens')
                raise ValueError(f'{name} are {tokens} tokens, but their views are of {what}')
            return each
        if not self.count and not tokens:
            return 1
        if not self.count or tokens % self.count:
            raise ValueError(f'{name} are {tokens} tokens, which do not divide among the {self.count} cameras of their views')
        return tokens // self.count

    def lift(self) -> Tensor | None:
        """(B, N, 4, 4) float64: normalised K, or an affine map; None without."""
        if self.img_from_cam is None:
            return None
        matrix = self.img_from_cam.double()
        if self.image_hw is None:
            return matrix
        height, width = self.image_hw
        u, v, one = matrix[..., :3, :3].unbind(-2)
        return pad_affine(torch.stack([u / width - one / 2, v / height - one / 2, one], dim=-2))

    def places(self) -> Tensor | None:
        """(B or 1, N or 1, T, 4) float64: y, x, rows, columns of every token in its image; rows and columns are 0 where they
        are not known."""
        if self.grid is None:
            return None
        if isinstance(self.grid, tuple):
            rows, columns = self.grid
            index = torch.arange(rows * columns, device=self.cam_from_world.device)
            y, x = index.div(columns, rounding_mode='floor'), index % columns
            place = torch.stack([y, x, torch.full_like(x, rows), torch.full_like(x, columns)], dim=-1).double()
            if self.per == 'camera':
                return place[None, None]
            return place.repeat(self.count // (rows * columns), 1)[None, :, None]
        place = self.grid.double()[:, :, None]
        return place if place.shape[-1] == 4 else torch.cat([place, torch.zeros_like(place)], dim=-1)

    def as_tokens(self, tokens: int | None = None) -> Views:
        """The same, with every token's own pose.

        Args:
            tokens: how many there are in all; needed only without a grid.
        """
        if self.per == 'token':
            return self
        if tokens is None:
            if not isinstance(self.grid, tuple):
                raise ValueError('as_tokens: views without a grid do not know how many tokens they have; pass tokens=')
            tokens = self.count * self.grid[0] * self.grid[1]
        each = self.tokens_each(tokens, 'as_tokens: these')
        spread: dict[str, Any] = {}
        for name in ('cam_from_world', 'img_from_cam', 'time', 'posed'):
            value = getattr(self, name)
            spread[name] = None if value is None else value.repeat_interleave(each, dim=1, output_size=value.shape[1] * each)
        return replace(self, **spread, per='token', validate=False)


def join_views(*parts: Views) -> Views:
    """The tokens of several views, one after the other, each with its own pose.

    Raises:
        ValueError: where some have times and others do not, or tokens cannot be counted.
    """
    parts = tuple(part.as_tokens() for part in parts)
    timed = [part.time is not None for part in parts]
    if any(timed) and not all(timed):
        raise ValueError(f'join_views: part {timed.index(False)} has no time, others do; give all of them one, or none')
    batch = max(part.cam_from_world.shape[0] for part in parts)

    def joined(values: list[Tensor]) -> Tensor:
        return torch.cat([value.expand(batch, *value.shape[1:]) for value in values], dim=1)

    lifts = None
    if any(part.img_from_cam is not None for part in parts):
        lifts = joined([_normalised(part) for part in parts])
    places = [part.places() for part in parts]
    grid = None
    if any(place is not None for place in places):
        grid = joined([part.cam_from_world.new_zeros(1, part.count, 4, dtype=torch.float64) if place is None else place[:, :, 0]
                       for part, place in zip(parts, places)])
    posed = joined([torch.ones(1, part.count, dtype=torch.bool, device=part.cam_from_world.device) if part.posed is None
                    else part.posed for part in parts])
    return Views(joined([part.cam_from_world.double() for part in parts]), lifts, None if lifts is None else (1, 1), grid,
                 joined([part.time for part in parts if part.time is not None]) if all(timed) else None, 'token',
                 posed if any(part.posed is not None for part in parts) else None, validate=False)


def _normalised(part: Views) -> Tensor:
    """(B, N, 3, 3) float64, K of the image made 1 high and 1 wide; without K, one that changes nothing."""
    count, like = part.count, part.cam_from_world
    lift = part.lift()
    if lift is None:
        lift = torch.eye(4, dtype=torch.float64, device=like.device).expand(1, count, 4, 4)
    elif part.image_hw is None:
        raise ValueError('join_views: affine maps of metres (img_from_cam without image_hw) cannot be joined with other views')
    matrix = lift[..., :3, :3].clone()
    matrix[..., :2, :] += 0.5 * matrix[..., 2:, :]
    return matrix
