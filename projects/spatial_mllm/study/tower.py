"""Spatial: study. In: rooms. Out: a vision tower that learned which colours are where, and its tokens of all frames, kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.spatial_mllm.processing.patches import PatchSettings, patch_rows
from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.study.data import MERGE, PATCH, Rooms

_LEAST = 0.02
"""Share of a token's pixels from which a category counts as there."""
_BATCH, _RATE = 32, 2e-3
_FLOOR = 1e-2
"""Of the mean variance: directions that vary less are noise."""
_PATCHES = PatchSettings(patch=PATCH, temporal=2, merge=MERGE, min_pixels=1)


def pixels_of(frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) uint8 -> patch rows and N grids: every frame is a video of its own, seen twice.

    (N, 2, H, W, 3): every pair is one; its two frames become the same tokens.
    """
    pairs = frames if frames.ndim == 5 else np.repeat(frames[:, None], 2, axis=1)
    made = [patch_rows(torch.from_numpy(pair), _PATCHES) for pair in pairs]
    return torch.cat([rows for rows, _ in made]), torch.stack([grid for _, grid in made])


def train_tower(look: Callable[[Tensor, Tensor], Tensor], parameters: list[nn.Parameter], dim: int, rooms: Rooms,
                steps: int, seed: int) -> float:
    """Teaches the tower, with two heads that are thrown away, for so many steps.

    Returns:
        Share of (token, category) pairs of the last batch that were told right, of those that are there.
    """
    torch.manual_seed(seed)
    head = nn.Linear(dim, 3 * len(CATEGORIES))
    learning = torch.optim.AdamW([*parameters, *head.parameters()], lr=_RATE)
    rng = np.random.default_rng(seed)
    frames = rooms.frames.reshape(-1, *rooms.frames.shape[2:])
    there = rooms.there.reshape(-1, *rooms.there.shape[2:])
    place = rooms.place.reshape(-1, *rooms.place.shape[2:])
    found = 0.0
    for step in range(steps):
        for group in learning.param_groups:
            group['lr'] = _RATE * (1 - step / steps)
        chosen = rng.integers(len(frames), size=_BATCH)
        told = head(look(*pixels_of(frames[chosen]))).unflatten(-1, (3, -1)).unflatten(0, (_BATCH, -1))
        truth = torch.from_numpy(there[chosen]).float() > _LEAST
        where = torch.from_numpy(place[chosen]).float().movedim(-1, 2)
        apart = ((told[:, :, 1:] - where).square().sum(2) * truth).sum() / truth.sum().clamp(min=1)
        loss = F.binary_cross_entropy_with_logits(told[:, :, 0], truth.float(), pos_weight=torch.tensor(5.0)) + apart
        learning.zero_grad()
        loss.backward()
        learning.step()
        found = float(((told[:, :, 0] > 0) & truth).sum() / truth.sum().clamp(min=1))
    return found


def tower_tokens(look: Callable[[Tensor, Tensor], Tensor], rooms: Rooms, path: Path) -> Tensor:
    """(R, T * c, D) float16, from PATH where it is there."""
    if path.is_file():
        return torch.from_numpy(np.load(path))
    tokens = look_at(look, rooms.frames)
    np.save(path, tokens.numpy())
    return tokens


@torch.no_grad()
def look_at(look: Callable[[Tensor, Tensor], Tensor], videos: np.ndarray) -> Tensor:
    """(R, T, H, W, 3) frames, or (R, T, 2, H, W, 3) pairs of them -> (R, T * c, D) float16."""
    seen = videos.reshape(-1, *videos.shape[2:])
    tokens = torch.cat([look(*pixels_of(seen[start:start + 256])).half() for start in range(0, len(seen), 256)])
    return tokens.reshape(len(videos), -1, tokens.shape[-1])


class Whitening:
    """Turns and scales tokens so that all directions vary as much, as embeddings of words do.

    As they come from the tower, four directions hold most of the variance, and what is where lies in small ones.

    Args:
        tokens: (R, n, D) of the rooms for training.
    """

    def __init__(self, tokens: Tensor) -> None:
        wide = tokens.float().flatten(0, 1)
        self.mean = wide.mean(0)
        values, vectors = torch.linalg.eigh(((wide - self.mean).T @ (wide - self.mean) / len(wide)).double())
        matrix = ((vectors * (values + _FLOOR * values.mean()).rsqrt()) @ vectors.T).float()
        self.matrix = matrix / ((wide - self.mean) @ matrix).square().mean().sqrt()

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R, n, D) -> the same, float16."""
        return torch.stack([((one.float() - self.mean) @ self.matrix).half() for one in tokens])


def shown_by(tokens: Tensor, rooms: Rooms) -> Tensor:
    """(categories, D): the mean of the tokens (R, T * c, D) that show a category, as long as a token."""
    there = torch.from_numpy(rooms.there.reshape(-1, len(CATEGORIES)) > _LEAST).float()
    return F.normalize(there.T @ tokens.float().flatten(0, 1), dim=1) * tokens.shape[-1] ** 0.5


def look_of(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The tower of a SpatialQwen25."""
    def look(pixels: Tensor, grid: Tensor) -> Tensor:
        return model.look(pixels, grid)[0]

    return look
