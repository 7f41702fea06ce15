"""Spatial: training. In: question files and the folder of their videos. Out: examples and their rows, one video at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmengine.dist import broadcast_object_list
from mmengine.logging import MMLogger, print_log
from torch.utils.data import Dataset

from projects.spatial_mllm.geometry_sources.source import build_source
from projects.spatial_mllm.processing.processor import Processor
from projects.spatial_mllm.readers.clip import ClipReader, UnusableSampleError, UnusableVideoError
from projects.spatial_mllm.readers.samples import Sample, read_sft, read_sqa3d, read_vsibench
from projects.spatial_mllm.scoring.rows import KEYS
from projects.spatial_mllm.scoring.store import AnswerStore

_READERS: dict[str, Any] = dict(sft=read_sft, vsibench=read_vsibench, sqa3d=read_sqa3d)
_FILES = dict(sft=('path',), vsibench=('path',), sqa3d=('questions', 'annotations'))
_UNUSABLE_IN_A_ROW = 20


@DATASETS.register_module()
class SpatialQADataset(Dataset):
    """Questions about videos.

    Args:
        source: what to read: dict(type='sft' | 'vsibench', path=FILE) or dict(type='sqa3d', questions=FILE, annotations=FILE),
            and videos=FOLDER.
        processor: settings of a Processor; its `geometry` says which source knows the cameras.
        sampler: config of a frame sampler (docs/frame_sampling.md).
        test_mode: the answers are to be given, video by video, so that each is decoded once; a video that cannot be read is a
            row with a `problem` and without an answer. In training the next sample takes its place.
        answers: folder of an AnswerStore; what is answered in it is not asked again. For benchmarks, not for conversations.
        kinds: question types to keep; None is all.
        limit: keep this many questions, the first, 1 or more; None is all.

    Raises:
        ValueError: unknown settings, or a file of which nothing can be used.
    """

    def __init__(self, source: dict, processor: dict, sampler: dict, test_mode: bool = False, answers: str | None = None,
                 kinds: list | None = None, limit: int | None = None) -> None:
        super().__init__()
        source = dict(source)
        self.kind = source.pop('type', None)
        if self.kind not in _READERS or set(source) != {*_FILES[self.kind], 'videos'}:
            wanted = '; '.join(f"type='{kind}': {', '.join(names)}, videos" for kind, names in _FILES.items())
            raise ValueError(f'source={dict(source, type=self.kind)}: takes {wanted}')
        if limit is not None and limit < 1:
            raise ValueError(f'limit={limit}: must be 1 or more, or None for all questions')
        if answers is not None and self.kind not in KEYS:
            raise ValueError(f'answers={answers!r}: answers are kept for {", ".join(KEYS)}, not for a source of type '
                             f'{self.kind!r}')
        self.test_mode, self.answers = test_mode, answers
        self.unread: dict[Path, str] = {}
        geometry = build_source(processor.get('geometry'))
        self.clips = ClipReader(sampler, () if geometry is None else geometry.needs)
        self.processor = Processor(**{**processor, 'geometry': geometry})
        self.samples, problems = _READERS[self.kind](**source, needs_geometry=geometry is not None and bool(geometry.needs))
        for problem in problems:
            print_log(problem, logger='current' if MMLogger.check_instance_created('mmengine') else None, level=30)
        self.samples = self._wanted(kinds, limit)
        if answers is not None:
            self._leave_out(AnswerStore(answers, settings=self._settings(source, processor, sampler), key=KEYS[self.kind]))

    def _wanted(self, kinds: list | None, limit: int | None) -> list[Sample]:
        kept = [sample for sample in self.samples if kinds is None or sample.row.get('question_type') in kinds]
        if not kept:
            there = sorted({str(sample.row.get('question_type')) for sample in self.samples})
            raise ValueError(f'kinds={kinds}: no question of these types; there are {", ".join(there)}')
        return sorted(kept[:limit], key=lambda sample: str(sample.video)) if self.test_mode else kept[:limit]

    def _leave_out(self, store: AnswerStore) -> None:
        """All processes leave out the same, although the first may answer before the last has read what is there.

        Where all are answered one is asked again, since a loader of nothing cannot run.
        """
        finished = [{key for key, row in store.finished().items() if 'problem' not in row}]
        broadcast_object_list(finished)
        print_log(f'{store.folder}: {len(finished[0])} answers are kept', logger='current')
        self.samples = [sample for sample in self.samples if sample.key not in finished[0]] or self.samples[-1:]

    @staticmethod
    def _settings(source: Mapping, processor: Mapping, sampler: Mapping) -> dict[str, Any]:
        return {name: {key: str(value) for key, value in sorted(part.items())}
                for name, part in dict(source=source, processor=processor, sampler=sampler).items()}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """dict(example=Example, row=the question's own keys); example None and row['problem'] where testing finds it unusable.

        Raises:
            ValueError: training found many unusable samples in a row, or none that can be used.
        """
        problems = list(self.unread.values())[-1:]
        tried = 0
        for step in range(len(self.samples)):
            sample = self.samples[(index + step) % len(self.samples)]
            if sample.video in self.unread and not self.test_mode:
                continue
            try:
                return dict(example=self._example(sample), row=dict(sample.row))
            except UnusableSampleError as error:
                problems.append(str(error))
                if isinstance(error, UnusableVideoError):
                    self.unread[sample.video] = str(error)
            print_log(f'{problems[-1]}; it is left out', logger='current', level=30)
            if self.test_mode:
                return dict(example=None, row=dict(sample.row, problem=problems[-1]))
            tried += 1
            if tried == _UNUSABLE_IN_A_ROW:
                break
        raise ValueError(f'{tried or len(self.samples)} samples in a row cannot be used, the last: {problems[-1]}')

    def _example(self, sample: Sample) -> Any:
        if sample.answer is None and not self.test_mode:
            raise UnusableSampleError(f'{sample.where}: has no answer to learn')
        clip = self.clips(sample)
        try:
            return self.processor(sample.prompt, None if self.test_mode else sample.answer, torch.from_numpy(clip.frames),
                                  clip.geometry, clip.seconds_per_frame)
        except ValueError as error:
            raise UnusableSampleError(f'{sample.where}: {error}') from error
