"""Spatial: made rooms. In: a preset's name and changes. Out: all that the rooms depend on, checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SPLITS = ('train', 'val', 'test')
PATHS = ('independent', 'pairs', 'walk')
_MAX_VIEW_DEG = 60.0


@dataclass(frozen=True)
class RoomSettings:
    """What a set of rooms is made with.

    Attributes:
        preset, seed: of the set.
        rooms: how many of each split, in the order of `SPLITS`.
        num_frames: of each room's video.
        image_size: height and width in pixels.
        view_deg: horizontal angle of view, at most 60: wide images hold several objects, whose places need no pose.
        path: 'independent' (views spread over the circle, in random order), 'pairs' (as that, but every second frame is a near
            view of the one before it), 'walk' (a turn in small steps, from whose order a direction can be guessed).
        areas_m2: floor areas, equally often.
        camera_radius_m: how far from the room's middle a camera may stand.
        rounds: how often each type of question is asked of a room, at most, of other pieces.
        min_pixel_share: of an image that an object must fill to be seen.
    """

    preset: str
    seed: int
    rooms: tuple[int, int, int]
    num_frames: int = 8
    image_size: int = 84
    view_deg: float = 50.0
    path: str = 'independent'
    areas_m2: tuple[float, ...] = (16.0, 20.0, 25.0, 30.0)
    camera_radius_m: float = 0.25
    rounds: int = 2
    min_pixel_share: float = 0.004

    def __post_init__(self) -> None:
        """Raises ValueError for values that no room can be made with."""
        problems = {
            'seed must not be negative': self.seed < 0,
            f'path must be one of {", ".join(PATHS)}, got {self.path!r}': self.path not in PATHS,
            f'view_deg must be in (20, {_MAX_VIEW_DEG:g}], got {self.view_deg}': not 20 < self.view_deg <= _MAX_VIEW_DEG,
            f'num_frames must be even and at least 4, got {self.num_frames}': self.num_frames < 4 or self.num_frames % 2 == 1,
            f'image_size must be at least 28, got {self.image_size}': self.image_size < 28,
            f'rounds must be at least 1, got {self.rounds}': self.rounds < 1,
            f'areas_m2 must be from 16 to 1000, got {self.areas_m2}':
                not self.areas_m2 or not all(16 <= area <= 1000 for area in self.areas_m2),
            f'rooms must be three counts that are not negative, got {self.rooms}': len(self.rooms) != 3 or min(self.rooms) < 0,
        }
        for problem, is_there in problems.items():
            if is_there:
                raise ValueError(problem)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()}


PRESETS: dict[str, tuple[int, int, int]] = {'nano': (60, 20, 20), 'tiny': (1000, 200, 200), 'small': (8000, 500, 1000)}
"""Rooms for train, val and test."""


def make_settings(preset: str, seed: int, **changes: Any) -> RoomSettings:
    """A preset with changes.

    Raises:
        ValueError: no such preset, or a value that no room can be made with.
    """
    if preset not in PRESETS:
        raise ValueError(f'unknown preset {preset!r}; known: {", ".join(PRESETS)}')
    return RoomSettings(preset, seed, **{'rooms': PRESETS[preset], **changes})
