"""Spatial: study. In: rows, a seed, folders. Out: one result file per row and seed; what is finished is not run again.

A row's weights stay in the work folder: `probe_rows` asks them about other rooms, in files of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projects.spatial_mllm.rooms.output_folder import write_whole
from projects.spatial_mllm.study.batches import Batcher
from projects.spatial_mllm.study.data import MERGE, PATCH, SAMPLERS
from projects.spatial_mllm.study.learning import Learner, accuracies, build_network, learn
from projects.spatial_mllm.study.prepare import Part, Prepared, Say, StudySettings, kept
from projects.spatial_mllm.study.probes import LONG_VIDEOS, PAIRS, PROBES
from projects.spatial_mllm.study.rows import PROBED, SAMPLED, Row


class Study:
    """Runs rows and keeps their results.

    Args:
        work: folder of rooms, tower, tokens and weights.
        results: folder of results.
        settings: of the study.
        workers: processes that make rooms.
        say: is told of every row.
    """

    def __init__(self, work: Path, results: Path, settings: StudySettings, workers: int = 1, say: Say = print) -> None:
        self.work, self.results, self.settings, self.workers, self.say = work, results, settings, workers, say
        self._prepared: Prepared | None = None
        results.mkdir(parents=True, exist_ok=True)

    @property
    def prepared(self) -> Prepared:
        """Made when it is first needed."""
        if self._prepared is None:
            self._prepared = Prepared(self.work, self.settings, self.workers, self.say)
        return self._prepared

    def run_rows(self, rows: Sequence[Row], seed: int) -> None:
        """Rows of a seed that are not finished.

        Raises:
            ValueError: RESULTS holds a row that was run with other settings.
        """
        for row in rows:
            self._finish(f'{row.name}-{seed}.json', row, seed, self._tested)

    def probe_rows(self, rows: Sequence[Row], seed: int) -> None:
        """Asks rows that are finished about other rooms, and the one of SAMPLED about frames that samplers choose, and
        about pairs of frames that become one step."""
        for row in rows:
            if row.name in PROBED:
                self._finish(f'probes_{row.name}-{seed}.json', row, seed, self._probed)
            if row.name == SAMPLED:
                self._finish(f'samplers_{row.name}-{seed}.json', row, seed, self._sampled)
                self._finish(f'merged_{row.name}-{seed}.json', row, seed, self._merged)

    def _finish(self, name: str, row: Row, seed: int, run: Callable[[Row, int], Mapping[str, Any]]) -> None:
        path, settings = self.results / name, self.settings.to_json()
        if path.is_file():
            stored = json.loads(path.read_text())['settings']
            if stored != settings:
                raise ValueError(f'{path} was run with other settings ({stored}): give another --results, or remove it')
            return
        found = run(row, seed)
        write_whole(path, json.dumps(dict(row=row.name, seed=seed, settings=settings, **found), indent=1) + '\n')
        for part, kinds in found.items():
            if isinstance(kinds, Mapping) and part != 'val':
                self.say(f'{path.stem}, {part}: ' + ', '.join(f'{kind} {one["accuracy"]:.2f}' for kind, one in kinds.items()))

    def _tested(self, row: Row, seed: int) -> dict[str, Any]:
        seconds = 0.0

        def train() -> Mapping[str, Tensor]:
            nonlocal seconds
            learner = self._learner(row, seed)
            seconds = learn(learner, self._batcher(row, seed, self.prepared.parts['train']), self.settings.schedule, seed)
            return {key: value for key, value in learner.state_dict().items() if '.visual.' not in key}

        learner = self._taught(row, seed, train)
        found = {split: accuracies(learner, self._batcher(row, seed, self.prepared.parts[split])) for split in ('val', 'test')}
        learned = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
        return dict(seconds=round(seconds), parameters=learned, **found)

    def _probed(self, row: Row, seed: int) -> dict[str, Any]:
        learner = self._taught(row, seed)
        return {probe.name: accuracies(learner, self._batcher(row, seed, self.prepared.probe(probe))) for probe in PROBES}

    def _sampled(self, row: Row, seed: int) -> dict[str, Any]:
        learner, part, found = self._taught(row, seed), self.prepared.probe(LONG_VIDEOS), {}
        for name in SAMPLERS:
            rooms, index = part.rooms.take(name)
            tokens = part.tokens[torch.arange(len(index))[:, None], index]
            found[name] = accuracies(learner, self._batcher(row, seed, Part(rooms, tokens)))
        return found

    def _merged(self, row: Row, seed: int) -> dict[str, Any]:
        learner = self._taught(row, seed)
        return {f'{probe.name}_{how}': accuracies(learner, self._batcher(row, seed, part))
                for probe in PAIRS for how, part in self.prepared.pairs(probe)}

    def _batcher(self, row: Row, seed: int, part: Part) -> Batcher:
        return Batcher(part.rooms, part.tokens, self.prepared.vocabulary, row, seed)

    def _learner(self, row: Row, seed: int) -> Learner:
        network = build_network(self.prepared.vocabulary, row, seed, self.prepared.shown)
        return Learner(network, (self.settings.image_size // (PATCH * MERGE)) ** 2)

    def _taught(self, row: Row, seed: int, train: Callable[[], Mapping[str, Tensor]] | None = None) -> Learner:
        """With the weights of WORK, which `train` makes where they are not there."""
        settings = hashlib.sha256(json.dumps(self.settings.to_json(), sort_keys=True).encode()).hexdigest()[:10]
        path = self.work / f'row_{row.name}-{seed}_{settings}.pt'

        def missing() -> Mapping[str, Tensor]:
            raise ValueError(f'{path} is missing: remove the result of {row.name}, seed {seed}, to train it again')

        learner = self._learner(row, seed)
        learner.load_state_dict(kept(path, train or missing), strict=False)
        return learner
