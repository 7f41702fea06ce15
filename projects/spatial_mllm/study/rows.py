"""Spatial: study. In: a row's name. Out: what its model is told of the cameras, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_P: dict[str, Any] = dict(mode='replace', values=True, trans_scale=1 / 3)
_POINTS, _CAMERA = 32, 32
"""Numbers of a token of geometry: 4 of each of 4 patches and 2 frames; and of a camera: 16 of each of 2 frames."""
SOURCES = ('own', 'other', 'permuted')


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of its result file.
        label: in the table.
        spatial: of the model, see SpatialMixin.
        poses: whose poses it is told: 'own', 'other' (another room's), 'permuted' (this room's, in another order).
        video: False: it sees no video at all.
        images: False: all vision tokens are the same.
    """

    name: str
    label: str
    spatial: Mapping[str, Any] = field(default_factory=dict)
    poses: str = 'own'
    video: bool = True
    images: bool = True


ROWS = (
    Row('blind', 'blind', video=False),
    Row('images', 'images (THW)'),
    Row('poses', '+ poses: PRoPE on half of the channels', dict(pose=_P)),
    Row('other', "+ another room's poses", dict(pose=_P), poses='other'),
    Row('geometry', '+ geometry (add)', dict(connector=dict(type='add', geometry_dim=_POINTS))),
    Row('poses_alone', 'poses without images', dict(pose=_P), images=False),
    Row('permuted', '+ poses, permuted within the room', dict(pose=_P), poses='permuted'),
    Row('embedding', '+ plain embedding of the pose, added to all tokens of a frame',
        dict(connector=dict(type='camera_token', geometry_dim=_CAMERA))),
    Row('camera_token', '+ camera token before those of a frame',
        dict(connector=dict(type='camera_prefix', geometry_dim=_CAMERA))),
    Row('cat', '+ geometry (cat)', dict(connector=dict(type='cat', geometry_dim=_POINTS))),
    Row('hw', 'HW: positions without time', dict(pose=dict(mode='still'))),
    Row('hw_p', 'HW+P: queries and keys alone', dict(pose=dict(_P, values=False))),
    Row('thw_p', 'THW+P: appended channels', dict(pose=dict(mode='append', channels=16, trans_scale=1 / 3))),
    Row('cape', '+ CaPE', dict(pose=dict(_P, convention='eschernet', intrinsics=False, values=False))),
    Row('alibi', '+ ALiBi by pose', dict(pose=dict(mode='bias', trans_scale=1 / 3))),
)
PROBED = ('images', 'poses', 'embedding', 'geometry')
"""Rows that are asked about other rooms than they learned from."""
SAMPLED = 'poses'
"""The row that is asked about long videos, of which samplers choose the frames."""
TWO_SEEDS = ('blind', 'images', 'poses', 'other', 'geometry')
"""Rows that are run with two seeds."""


def choose_rows(names: Sequence[str] | None) -> tuple[Row, ...]:
    """Rows by name; None is all.

    Raises:
        ValueError: there is no such row.
    """
    known = {row.name: row for row in ROWS}
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f'no such rows: {", ".join(unknown)}. Known: {", ".join(known)}')
    return ROWS if names is None else tuple(known[name] for name in names)
