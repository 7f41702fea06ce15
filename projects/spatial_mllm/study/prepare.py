"""Spatial: study. In: settings, a folder. Out: what all rows share: rooms, a frozen tower's tokens of their frames, words."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projects.common.safe_tensors import load_listed
from projects.spatial_mllm.rooms.settings import SPLITS, make_settings
from projects.spatial_mllm.study.data import Rooms, key_of, load_rooms
from projects.spatial_mllm.study.learning import HIDDEN, Schedule, build_network
from projects.spatial_mllm.study.merging import merged
from projects.spatial_mllm.study.probes import MERGED, Probe
from projects.spatial_mllm.study.rows import ROWS
from projects.spatial_mllm.study.tower import Whitening, look_of, shown_by, tower_tokens, train_tower
from projects.spatial_mllm.study.words import Vocabulary

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudySettings:
    """What the results depend on.

    Attributes:
        rooms: for training, for choosing, for the report.
        num_frames, image_size: of the videos.
        tower_steps: how long the vision tower learns, 32 frames at a time.
        schedule: how long a row learns.
        probe_rooms: of each probe.
    """

    rooms: tuple[int, int, int] = (2000, 200, 300)
    num_frames: int = 8
    image_size: int = 84
    tower_steps: int = 1000
    schedule: Schedule = field(default_factory=Schedule)
    probe_rooms: int = 200

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True, eq=False)
class Part:
    """Rooms and the tower's whitened tokens of their frames, (R, T * c, D)."""

    rooms: Rooms
    tokens: Tensor


class Prepared:
    """What all rows and seeds share, each made once in WORK: a seed is one of weights and of the order of rooms.

    Attributes:
        parts: of the three splits.
        shown: (categories, D), what shows a category.
    """

    def __init__(self, work: Path, settings: StudySettings, workers: int = 1, say: Say = print) -> None:
        self.work, self.workers, self.probe_rooms = work, workers, settings.probe_rooms
        self.made = make_settings('nano', 0, rooms=settings.rooms, num_frames=settings.num_frames,
                                  image_size=settings.image_size)
        rooms = {split: load_rooms(work, self.made, split, count, workers) for split, count in zip(SPLITS, settings.rooms)}
        self.vocabulary = Vocabulary()
        network = build_network(self.vocabulary, ROWS[0], 0)
        self.name = f'{settings.rooms[0]}_{key_of(self.made)}_{settings.tower_steps}'
        self.look = look_of(network)

        def teach() -> Mapping[str, Tensor]:
            told = train_tower(self.look, list(network.model.visual.parameters()), HIDDEN, rooms['train'],
                               settings.tower_steps, 0)
            say(f'the tower names {told:.2f} of what its tokens show')
            return network.model.visual.state_dict()

        network.model.visual.load_state_dict(kept(work / f'tower_{self.name}.pt', teach))
        network.eval()
        seen = {split: self._seen(split, own, self.made) for split, own in rooms.items()}
        self.whitening = Whitening(seen['train'])
        self.parts = {split: Part(own, self.whitening(seen[split])) for split, own in rooms.items()}
        self.shown = shown_by(self.parts['train'].tokens, rooms['train'])

    def _seen(self, split: str, rooms: Rooms, settings: Any) -> Tensor:
        path = self.work / f'tokens_{split}_{len(rooms)}_{key_of(settings)}_{self.name}.npy'
        return tower_tokens(self.look, rooms, path)

    def probe(self, probe: Probe) -> Part:
        """Rooms of a probe, as the same tower sees them."""
        rooms, settings = self._probed(probe)
        return Part(rooms, self.whitening(self._seen('test', rooms, settings)))

    def pairs(self, probe: Probe) -> Iterator[tuple[str, Part]]:
        """Rooms of a probe, every two frames of which become one step, in each way of MERGED; see `merged`."""
        rooms, _ = self._probed(probe)
        for how in MERGED:
            half, tokens = merged(rooms, how, self.look)
            yield how, Part(half, self.whitening(tokens))

    def _probed(self, probe: Probe) -> tuple[Rooms, Any]:
        settings = dataclasses.replace(self.made, **probe.changes)
        return load_rooms(self.work, settings, 'test', self.probe_rooms, self.workers), settings


def kept(path: Path, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Weights of PATH, which are made where it is not there."""
    if not path.is_file():
        unfinished = path.with_suffix('.unfinished')
        torch.save(dict(make()), unfinished)
        os.replace(unfinished, path)
    return load_listed(path, ())
