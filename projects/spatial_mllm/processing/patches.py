"""Spatial: processing. In: frames (T, H, W, 3) uint8 RGB. Out: rows of patches, float32, and their grid.

The same numbers as Qwen2-VL's processor, which needs torchvision; tests/reference/qwen_patches.npz holds what it returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
LARGEST_RATIO = 200


@dataclass(frozen=True)
class PatchSettings:
    """How frames become rows.

    Args:
        patch: pixels along a side of a patch.
        temporal: frames in a patch.
        merge: patches along a side of the block that becomes one token.
        mean, std: of RGB in 0..1.
        min_pixels, max_pixels: bounds of a resized frame's area.
    """

    patch: int = 14
    temporal: int = 2
    merge: int = 2
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280

    def __post_init__(self) -> None:
        if min(self.patch, self.temporal, self.merge) < 1:
            raise ValueError(f'patch, temporal and merge must be 1 or more, got {self.patch}, {self.temporal}, {self.merge}')
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f'mean and std need three numbers each, std above 0, got {self.mean} and {self.std}')
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(f'min_pixels={self.min_pixels} and max_pixels={self.max_pixels} do not bound an area')

    @property
    def factor(self) -> int:
        """Pixels along the side of a token."""
        return self.patch * self.merge


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size in multiples of `factor` with an area from `min_pixels` to `max_pixels` and about the same shape.

    Source: qwen-vl-utils. Halves are rounded to even; over the maximum is rounded down, under the minimum up.

    Raises:
        ValueError: the longer side is more than 200 times the shorter.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > LARGEST_RATIO:
        raise ValueError(f'a frame of {height} x {width} pixels: sides must be at least 1, their ratio at most {LARGEST_RATIO}')
    sides = [round(side / factor) * factor for side in (height, width)]
    if sides[0] * sides[1] > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)]
    elif sides[0] * sides[1] < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        sides = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return sides[0], sides[1]


def resized(frames: Tensor, settings: PatchSettings) -> Tensor:
    """(T, H, W, 3) uint8 -> the same at `smart_resize`'s size, bicubic and antialiased."""
    height, width = frames.shape[1:3]
    size = smart_resize(height, width, settings.factor, settings.min_pixels, settings.max_pixels)
    if size == (height, width):
        return frames
    pictures = F.interpolate(frames.permute(0, 3, 1, 2).float(), size=size, mode='bicubic', antialias=True)
    return pictures.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def patch_rows(frames: Tensor, settings: PatchSettings) -> tuple[Tensor, Tensor]:
    """(T, H, W, 3) uint8 -> rows (t * h * w, 3 * temporal * patch * patch) float32 and the grid (3,) = (t, h, w) in patches.

    The last frame is repeated until the frames fill their patches, so a still image is one frame. Rows go by time, block row,
    block column, row in the block, column in the block; a row holds channel, time, y, x.

    Raises:
        ValueError: no frame, not uint8 RGB, or sides that are no multiples of patch * merge (see `resized`).
    """
    if frames.dim() != 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8 or not len(frames):
        raise ValueError(f'frames must be (T, H, W, 3) uint8 with T of 1 or more, got {tuple(frames.shape)} {frames.dtype}')
    height, width = frames.shape[1:3]
    if height % settings.factor or width % settings.factor:
        raise ValueError(f'a frame of {height} x {width} pixels does not divide into tokens of {settings.factor}')
    short = -len(frames) % settings.temporal
    frames = torch.cat([frames, frames[-1:].expand(short, -1, -1, -1)]).float() / 255
    colours = (frames - frames.new_tensor(settings.mean)) / frames.new_tensor(settings.std)
    blocks = colours.unflatten(2, (-1, settings.merge, settings.patch)).unflatten(1, (-1, settings.merge, settings.patch))
    cells = blocks.unflatten(0, (-1, settings.temporal))  # t, time, block row, row, y, block column, column, x, colour
    rows = cells.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).flatten(5).flatten(0, 4)
    grid = torch.tensor([len(frames) // settings.temporal, height // settings.patch, width // settings.patch])
    return rows, grid
