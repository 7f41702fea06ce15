"""Spatial: study. In: rows, a seed, folders. Out: one result file per row and seed; what is finished is not run again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from projects.common.safe_tensors import load_listed
from projects.spatial_mllm.rooms.output_folder import write_whole
from projects.spatial_mllm.rooms.settings import SPLITS, make_settings
from projects.spatial_mllm.study.batches import Batcher
from projects.spatial_mllm.study.data import Rooms, load_rooms
from projects.spatial_mllm.study.learning import HIDDEN, Learner, Schedule, accuracies, all_asked, build_network, learn
from projects.spatial_mllm.study.rows import ROWS, Row
from projects.spatial_mllm.study.tower import look_of, tower_tokens, train_tower
from projects.spatial_mllm.study.words import Vocabulary

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudySettings:
    """What the results depend on.

    Attributes:
        rooms: for training, for choosing, for the report.
        num_frames, image_size: of the videos.
        tower_steps: how long the vision tower learns, 64 frames at a time.
        schedule: how long a row learns.
    """

    rooms: tuple[int, int, int] = (4000, 300, 500)
    num_frames: int = 8
    image_size: int = 84
    tower_steps: int = 800
    schedule: Schedule = field(default_factory=Schedule)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all rows of a seed share: rooms of each split, the tower's tokens of their frames, and the words."""

    rooms: dict[str, Rooms]
    tokens: dict[str, torch.Tensor]
    vocabulary: Vocabulary


def run_rows(rows: Sequence[Row], seed: int, work: Path, results: Path, settings: StudySettings, workers: int = 1,
             say: Say = print) -> None:
    """Runs the rows of a seed that RESULTS does not hold.

    Raises:
        ValueError: RESULTS holds a row that was run with other settings.
    """
    todo = [row for row in rows if not _is_there(results / f'{row.name}-{seed}.json', settings)]
    if not todo:
        return
    prepared = prepare(seed, work, settings, workers, say)
    cells = next(iter(prepared.tokens.values())).shape[1] // settings.num_frames
    results.mkdir(parents=True, exist_ok=True)
    for row in todo:
        learner = Learner(build_network(prepared.vocabulary, row, seed), cells)
        made = {split: Batcher(rooms, prepared.tokens[split], prepared.vocabulary, row, seed)
                for split, rooms in prepared.rooms.items()}
        seconds = learn(learner, made['train'], settings.schedule, seed)
        found = {split: accuracies(learner, made[split]) for split in ('val', 'test')}
        learned = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
        result = dict(row=row.name, seed=seed, settings=settings.to_json(), seconds=round(seconds), parameters=learned, **found)
        write_whole(results / f'{row.name}-{seed}.json', json.dumps(result, indent=1) + '\n')
        told = ', '.join(f'{kind} {one["accuracy"]:.2f}' for kind, one in found['test'].items())
        say(f'{row.name}, seed {seed}: {told} ({seconds:.0f} s)')


def prepare(seed: int, work: Path, settings: StudySettings, workers: int, say: Say = print) -> Prepared:
    """Rooms, a tower that learned from those for training, and its tokens, each made once in WORK."""
    made = make_settings('nano', seed, rooms=settings.rooms, num_frames=settings.num_frames, image_size=settings.image_size)
    rooms = {split: load_rooms(work, made, split, count, workers) for split, count in zip(SPLITS, settings.rooms)}
    vocabulary = all_asked(*rooms.values())
    network = build_network(vocabulary, ROWS[0], seed)
    name = f'{settings.rooms[0]}_{seed}_{settings.num_frames}_{settings.image_size}_{settings.tower_steps}'
    tower, path = network.model.visual, work / f'tower_{name}.pt'
    if path.is_file():
        tower.load_state_dict(load_listed(path, ()))
    else:
        look, parameters = look_of(network), list(tower.parameters())
        told = train_tower(look, parameters, HIDDEN, rooms['train'], settings.tower_steps, seed)
        say(f'the tower names {told:.2f} of what its tokens show')
        torch.save(dict(tower.state_dict()), path)
    tower.eval()
    tokens = {split: tower_tokens(look_of(network), own, work / f'tokens_{split}_{len(own)}_{name}.npy')
              for split, own in rooms.items()}
    return Prepared(rooms, tokens, vocabulary)


def _is_there(path: Path, settings: StudySettings) -> bool:
    if not path.is_file():
        return False
    stored = json.loads(path.read_text())['settings']
    if stored != settings.to_json():
        raise ValueError(f'{path} was run with other settings ({stored}): give another --results, or remove it')
    return True
