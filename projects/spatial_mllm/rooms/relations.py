"""Spatial: made rooms. In: a scene. Out: who shares a frame with whom, distances and directions between nameable pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.spatial_mllm.rooms.layout import corners, distances
from projects.spatial_mllm.rooms.scene import Scene


@dataclass(frozen=True)
class Relations:
    """Of the S pieces that stand alone in their category; angles in degrees, to the left positive.

    Attributes:
        piece: (S,) their indices in the scene.
        first: (S,) the frame that shows each first, -1 where it is shown before but hardly.
        apart: (S, S) whether two share no frame, not by a single pixel.
        distance: (S, S) metres between closest points.
        turn: (S, S, S): standing at a and facing b, by how much one turns to c; nan where two are the same.
        azimuth: (S,) from where the video begins, looking as its first frame.
        range_m: (S,) metres on the floor from there to each piece's middle.
        in_first, near_first: (S,) whether the first frame shows it, whether one that shows it shows something of the first too.
    """

    piece: np.ndarray
    first: np.ndarray
    apart: np.ndarray
    distance: np.ndarray
    turn: np.ndarray
    azimuth: np.ndarray
    range_m: np.ndarray
    in_first: np.ndarray
    near_first: np.ndarray


def relations(scene: Scene) -> Relations:
    """Measured from the room itself, none from its frames but who is seen."""
    piece = scene.singles
    touched, seen = scene.pixels > 0, scene.pixels[:, piece] >= scene.least
    own = touched[:, piece]
    earliest = own.argmax(axis=0)
    centre = scene.pieces.centre[piece]
    away = centre[None] - centre[:, None]  # [a, b]: from a to b
    heading = np.degrees(np.arctan2(away[..., 1], away[..., 0]))
    turn = _wrapped(heading[:, None, :] - heading[:, :, None])
    same = np.eye(len(piece), dtype=bool)
    turn[same[:, :, None] | same[:, None, :] | same[None, :, :]] = np.nan
    pose = scene.cameras.world_from_cam[0]
    offset = centre - pose[:2, 3]
    ahead = np.degrees(np.arctan2(pose[1, 2], pose[0, 2]))
    linked = (touched & touched[0]).any(axis=1)
    return Relations(
        piece=piece,
        first=np.where(seen[earliest, np.arange(len(piece))], earliest, -1),
        apart=~(own[:, :, None] & own[:, None, :]).any(axis=0),
        distance=distances(corners(scene.pieces))[np.ix_(piece, piece)],
        turn=turn,
        azimuth=_wrapped(np.degrees(np.arctan2(offset[:, 1], offset[:, 0])) - ahead),
        range_m=np.hypot(*offset.T),
        in_first=scene.pixels[0, piece] >= scene.least,
        near_first=(own & linked[:, None]).any(axis=0),
    )


def _wrapped(degrees: np.ndarray) -> np.ndarray:
    return (degrees + 180) % 360 - 180
