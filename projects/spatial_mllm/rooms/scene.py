"""Spatial: made rooms. In: settings, a split and a room's number. Out: a furnished room: frames, depth, poses, who is where.

Cameras know nothing of the furniture, and what a piece is is drawn after it was seen: so neither the poses nor a name nor the
number of things tells an answer. Pieces that no frame shows are taken away. How many a counted category has is drawn first,
and the two counted categories of a room have five together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.spatial_mllm.rooms.furniture import CATEGORIES, NAMES
from projects.spatial_mllm.rooms.layout import Cameras, Pieces, place_cameras, place_pieces, room_size
from projects.spatial_mllm.rooms.render import furniture_boxes, render, solid_boxes
from projects.spatial_mllm.rooms.settings import SPLITS, RoomSettings

COUNTED = 5
"""Pieces of the two counted categories together."""
_COUNTS = (1, 2, 3, 4)
_SINGLES = (7, 8)
"""Categories with one piece."""
_PLACED = 20
_ATTEMPTS = 400


@dataclass(frozen=True)
class Scene:
    """A room and its video of T frames.

    Attributes:
        name: of the room, unique in the set.
        size: x, y, z in metres; area_m2 as it was drawn.
        pieces: N pieces of furniture; category (N,), indices of `CATEGORIES`.
        cameras: T views.
        frames (T, H, W, 3) uint8 RGB, depth (T, H, W) float32 metres, owner (T, H, W) index of a piece or -1.
        pixels: (T, N), how many each piece fills.
        least: pixels that a piece must fill to be seen.
    """

    name: str
    size: np.ndarray
    area_m2: float
    pieces: Pieces
    category: np.ndarray
    cameras: Cameras
    frames: np.ndarray
    depth: np.ndarray
    owner: np.ndarray
    pixels: np.ndarray
    least: float

    @property
    def singles(self) -> np.ndarray:
        """Pieces whose category stands once in the room: those that a question can name."""
        return np.flatnonzero(np.bincount(self.category, minlength=len(CATEGORIES))[self.category] == 1)

    def called(self, piece: int) -> str:
        """A piece's category."""
        return NAMES[self.category[piece]]


def generator(settings: RoomSettings, split: str, index: int, purpose: int) -> np.random.Generator:
    """Random numbers of one room for one purpose; the same whoever makes it, and in whatever order."""
    return np.random.default_rng([settings.seed, SPLITS.index(split), index, purpose])


def make_scene(settings: RoomSettings, split: str, index: int) -> Scene:
    """One room.

    Raises:
        RuntimeError: the settings leave no room in which enough pieces are seen.
    """
    areas = len(settings.areas_m2)
    area = settings.areas_m2[generator(settings, split, index // areas, 1).permutation(areas)[index % areas]]
    count = _COUNTS[generator(settings, split, index // len(_COUNTS), 2).permutation(len(_COUNTS))[index % len(_COUNTS)]]
    singles = int(generator(settings, split, index, 3).choice(_SINGLES))
    rng = generator(settings, split, index, 4)
    for _ in range(_ATTEMPTS):
        scene = _attempt(settings, rng, f'{split}_{index:06d}', area, (count, COUNTED - count), singles)
        if scene is not None:
            return scene
    raise RuntimeError(f'room {index} of {split}: no furniture of which every piece is seen in {_ATTEMPTS} attempts; '
                       'wider views, more frames or smaller rooms show more')


def _attempt(settings: RoomSettings, rng: np.random.Generator, name: str, area: float, counts: tuple[int, int],
             singles: int) -> Scene | None:
    size = room_size(rng, area)
    cameras = place_cameras(rng, settings)
    pieces = place_pieces(rng, size, _PLACED)
    least = settings.min_pixel_share * settings.image_size ** 2
    _, _, owner = render(size, solid_boxes(pieces), cameras, settings.image_size)
    seen = np.flatnonzero(_pixels(owner, len(pieces.yaw)).max(axis=0) >= least)
    wanted = singles + COUNTED
    if len(seen) < wanted:
        return None
    pieces = pieces.take(np.sort(rng.choice(seen, wanted, replace=False)))
    kinds = rng.permutation(len(CATEGORIES))[:singles + len(counts)]
    category = rng.permutation(np.repeat(kinds, [*counts, *[1] * singles]))
    frames, depth, owner = render(size, furniture_boxes(pieces, category), cameras, settings.image_size)
    pixels = _pixels(owner, wanted)
    if pixels.max(axis=0).min() < least:
        return None
    return Scene(name, size, area, pieces, category, cameras, frames, depth, owner, pixels, least)


def _pixels(owner: np.ndarray, count: int) -> np.ndarray:
    """(T, N) pixels of each piece in each frame."""
    return np.stack([np.bincount(frame.ravel() + 1, minlength=count + 1)[1:] for frame in owner])
