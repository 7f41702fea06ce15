"""Spatial: study. In: a name. Out: test rooms that differ from those for training in one thing, or long videos for samplers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from projects.spatial_mllm.model.poses import POSE_MERGES


@dataclass(frozen=True)
class Probe:
    """Test rooms that a row is asked about after it has learned.

    Attributes:
        name, label: in files and in the table.
        changes: of the settings of the rooms.
    """

    name: str
    label: str
    changes: Mapping[str, Any]


PROBES = (
    Probe('large', 'floors of 36 to 49 m2 (16 to 30)', dict(areas_m2=(36.0, 42.0, 49.0))),
    Probe('frames', '12 frames (8)', dict(num_frames=12)),
    Probe('narrow', 'a view of 42 degrees (50)', dict(view_deg=42.0)),
    Probe('wide', 'a view of 60 degrees (50)', dict(view_deg=60.0)),
)
LONG_VIDEOS = Probe('long', 'videos of 32 frames', dict(num_frames=32))
PAIRS = (
    Probe('near', 'near views', dict(num_frames=16, path='pairs')),
    Probe('far', 'far views', dict(num_frames=16)),
)
"""Videos of which every two frames become one step: two that show nearly the same, or two of different parts of the room."""
MERGED = ('second', *POSE_MERGES)
"""What becomes of a pair: its first frame alone, or tokens of both with a pose of POSE_MERGES."""
