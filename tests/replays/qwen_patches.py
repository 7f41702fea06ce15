"""Replays how frames become patch rows, and smart_resize. tests/reference/README.md says what the arrays are."""

from __future__ import annotations

from pathlib import Path

import torch
from replays.compare import difference, read_arrays

from projects.spatial_mllm.processing.patches import PatchSettings, patch_rows, smart_resize

TOLERANCE = 1e-5
ARRAYS = ('frames', 'pixel_values_videos', 'video_grid_thw', 'image_patches', 'image_grid_thw', 'smart_resize', 'mean', 'std')


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    arrays = read_arrays(path, ARRAYS)
    frames = torch.from_numpy(arrays['frames']).to(device)
    settings = settings_of(arrays)
    video, video_grid = patch_rows(frames, settings)
    image, image_grid = patch_rows(frames[:1], settings)
    table = arrays['smart_resize']
    factor = settings.factor if not (table[:, 4:] % settings.factor).any() else 28
    sizes = [smart_resize(*row[:2], factor, *row[2:4]) for row in table.tolist()]
    ours = dict(pixel_values_videos=video.cpu(), video_grid_thw=video_grid[None], image_patches=image.cpu(),
                image_grid_thw=image_grid[None])
    rows = [(name, difference(value.numpy(), arrays[name], TOLERANCE if value.is_floating_point() else 0))
            for name, value in ours.items()]
    return [*rows, ('smart_resize', difference(sizes, table[:, 4:]))]


def settings_of(arrays: dict) -> PatchSettings:
    """Patch and temporal size follow from the sizes of frames and rows."""
    patch = arrays['frames'].shape[1] // int(arrays['video_grid_thw'][0, 1])
    temporal = arrays['pixel_values_videos'].shape[1] // (3 * patch * patch)
    mean, std = (tuple(arrays[name].tolist()) for name in ('mean', 'std'))
    return PatchSettings(patch, temporal, mean=mean, std=std)
