"""Converter. In: a whole official detector's weights, and how its head is converted. Out: ours; which design it is.

Image encoders, necks and LiDAR branches have the same names here and there; only the head is another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .head_entries import HEAD, missing_entries

IMAGE_SLOTS = ('img_backbone', 'img_neck')
LIDAR_SLOTS = ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck')
_SHOWN = 4


@dataclass(frozen=True)
class Design:
    """How one family of official detectors is converted.

    Attributes:
        name: as in head_entries.GROUPS.
        head: the entries `pts_bbox_head.*` -> ours, the prefix kept; ValueError where some are of another head.
        no_use: regular expressions of entries that our detector has no use for.
        sign: regular expression of an entry that only this family has.
        slots: which the official detectors have besides the head, as they are called here and there.
    """

    name: str
    head: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    no_use: tuple[str, ...]
    sign: str
    slots: tuple[str, ...] = IMAGE_SLOTS

    def convert(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An official state dict -> ours.

        Raises:
            ValueError: naming the first entries that such a detector does not have, or lacks here.
        """
        used = {name: value for name, value in official.items() if not matches_any(self.no_use, name)}
        head = {name: value for name, value in used.items() if name.startswith(HEAD)}
        same = {name: value for name, value in used.items() if name.split('.')[0] in self.slots}
        if unknown := [name for name in used if name not in head and name not in same]:
            raise ValueError(f'{len(unknown)} entries that are of no part of this detector: {_shown(unknown)}')
        converted = self.head(head)
        if missing := missing_entries(self.name, head):
            raise ValueError(f'a head without {len(missing)} of its entries: {_shown(missing)}')
        return {**same, **converted}


def _shown(names: Sequence[str]) -> str:
    return f'{", ".join(names[:_SHOWN])}{", ..." if len(names) > _SHOWN else ""}'


def matches_any(patterns: Iterable[str], name: str) -> bool:
    """Whether one of the regular expressions fits the whole name."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def design_of(official: Iterable[str], designs: Mapping[str, Design]) -> str | None:
    """The one family whose sign is among the names; None for none or several."""
    names = list(official)
    found = [key for key, design in designs.items() if any(re.fullmatch(design.sign, name) for name in names)]
    return found[0] if len(found) == 1 else None


def encoder_of(official: Iterable[str]) -> str | None:
    """'v99' or 'r50', by the names of the image encoder; None for another or none."""
    names = set(official)
    if 'img_backbone.stage5.OSA5_3.ese.fc.weight' in names and 'img_backbone.stage4.OSA4_9.ese.fc.weight' in names:
        return 'v99'
    if 'img_backbone.layer3.5.conv3.weight' in names and 'img_backbone.layer3.6.conv3.weight' not in names:
        return 'r50'
    return None
