"""Data. Seeds all draws of an item by (seed, epoch, index): a resumed run sees what the uninterrupted run saw."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmdet3d.datasets import CBGSDataset, NuScenesDataset
from mmdet3d.registry import DATASETS
from mmengine.logging import print_log

from .seen_labels import SEEN_KEY, mark_seen
from .sequence_fields import ensure_sequence_fields, load_info_file


def item_seed(seed: int, epoch: int, index: int) -> int:
    """A 32-bit seed that depends on all three; neighbours are unrelated."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0])


_generators = threading.Lock()
"""Held while the process's generators are seeded; other threads wait, so that none draws another's numbers."""
_thread = threading.local()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs its body with python's, numpy's and torch's CPU generators seeded, then puts their states back.

    Inside another `seeded` of the same thread it does nothing: the outermost index (that of a resampling wrapper, say)
    decides. Threads take turns.
    """
    if is_seeded():
        yield
        return
    with _generators:
        states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
        random.seed(seed)
        np.random.seed(seed)
        torch.random.default_generator.manual_seed(seed)
        _thread.seeded = True
        try:
            yield
        finally:
            _thread.seeded = False
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.random.set_rng_state(states[2])


def is_seeded() -> bool:
    """Whether this thread runs inside `seeded`: a wrapper's index decides, not one's own."""
    return getattr(_thread, 'seeded', False)


class EpochCounter:
    """The epoch in shared memory: persistent workers hold a copy of the data set, but see this number change."""

    def __init__(self) -> None:
        self._epoch = torch.full((), -1, dtype=torch.int64).share_memory_()

    def set(self, epoch: int) -> None:
        """Called by EpochSeedHook before each training epoch."""
        self._epoch.fill_(epoch)

    def item_seed(self, seed: int, index: int) -> int:
        """The seed of item `index` in this epoch.

        Where nobody tells the epoch (no EpochSeedHook), it comes from numpy's generator, as in any other data set: a fixed
        epoch would repeat the same augmentation for ever.
        """
        epoch = int(self._epoch)
        return item_seed(seed, epoch, index) if epoch >= 0 else int(np.random.randint(2**31))


@DATASETS.register_module()
class SeededNuScenesDataset(NuScenesDataset):
    """mmdet3d's NuScenesDataset whose random transforms depend on (seed, epoch, index) only.

    Args:
        seed: part of the seed of every item.
        keep_seen_s: boxes without points are kept where the same object was valid (see `use_valid_flag`) in a keyframe of
            its scene at most that many seconds before; 0 is off, as in mmdet3d.
        kwargs: NuScenesDataset's own arguments.
    """

    _needs_sequence_fields = False

    def __init__(self, *args: Any, seed: int = 0, keep_seen_s: float = 0.0, **kwargs: Any) -> None:
        if not keep_seen_s >= 0:
            raise ValueError(f'keep_seen_s must be a time of 0 s or more, got {keep_seen_s}')
        self.seed, self.keep_seen_s, self._counter = seed, keep_seen_s, EpochCounter()
        check_classes(kwargs.get('metainfo'))
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The infos; DataError names a file that is missing, unreadable or of another version.

        Where sequence fields are needed and missing (infos made by mmdet3d), they are completed from the tables.
        """
        infos, metainfo = load_info_file(self.ann_file)
        if self._needs_sequence_fields or self.keep_seen_s > 0:
            infos = ensure_sequence_fields(infos, metainfo, self.data_root, self.ann_file)
        if self.keep_seen_s > 0:
            mark_seen(infos, self.keep_seen_s, self.use_valid_flag, self.ann_file)
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        return [self.parse_data_info(info) for info in infos]

    def _filter_with_mask(self, ann_info: dict) -> dict:
        """mmdet3d's filter of boxes without points, and `keep_seen_s`."""
        if SEEN_KEY not in ann_info:
            return super()._filter_with_mask(ann_info)
        kept = ann_info[SEEN_KEY]  # True for what is valid now, too
        return {key: value if key == 'instances' else value[kept] for key, value in ann_info.items()}

    def set_epoch(self, epoch: int) -> None:
        """Tells all workers which epoch they are in (EpochSeedHook calls it)."""
        self._counter.set(epoch)

    def __getitem__(self, index: int) -> dict:
        """One item of the pipeline, seeded; in testing nothing is random and nothing is seeded."""
        if self.test_mode:
            return super().__getitem__(index)
        with seeded(self._counter.item_seed(self.seed, index)):
            return super().__getitem__(index)


@DATASETS.register_module()
class SeededCBGSDataset(CBGSDataset):
    """mmdet3d's CBGSDataset: the same resampling for a given seed, and repeated items get different augmentations.

    Around NuScenesSequenceDataset it draws clips by the classes in their last frames. A class that occurs nowhere is left
    out, with a warning; mmdet3d's divides by zero there.
    """

    def __init__(self, dataset: dict | NuScenesDataset, seed: int = 0) -> None:
        self.seed, self._counter = seed, EpochCounter()
        super().__init__(dataset=dataset)

    def set_epoch(self, epoch: int) -> None:
        """Tells all workers which epoch they are in."""
        self._counter.set(epoch)

    def _get_sample_indices(self, dataset: NuScenesDataset) -> list[int]:
        names = self.metainfo['classes']
        indices_of: dict[int, list[int]] = {label: [] for label in range(len(names))}
        for index in range(len(dataset)):
            for label in dataset.get_cat_ids(index) - {-1}:
                indices_of[label].append(index)
        total = sum(map(len, indices_of.values()))
        if not total:
            raise ValueError(f'{dataset.ann_file} has no object of the classes {list(names)}: there is nothing to balance')
        absent = [names[label] for label, indices in indices_of.items() if not indices]
        if absent:
            print_log(f'{dataset.ann_file} has no {", ".join(absent)}: class-balanced sampling leaves them out', 'current',
                      level=30)
        chosen: list[int] = []
        with seeded(item_seed(self.seed, 0, 0)):
            for indices in filter(None, indices_of.values()):
                # mmdet3d's order of rounding, so that the counts are the same
                ratio = (1.0 / len(names)) / (len(indices) / total)
                chosen += np.random.choice(indices, int(len(indices) * ratio)).tolist()
        return chosen

    def get_data_info(self, idx: int) -> dict:
        """The info of item `idx`; of a clip, that of its last frame."""
        index = self._get_ori_dataset_idx(idx)
        ends = getattr(self.dataset, 'clip_ends', None)
        return self.dataset.get_data_info(index if ends is None else int(ends[index]))

    def __getitem__(self, index: int) -> dict:
        with seeded(self._counter.item_seed(self.seed, index)):
            return super().__getitem__(index)


def check_classes(metainfo: dict | None) -> None:
    """Raises ValueError that names classes nuScenes detection does not have."""
    known = NuScenesDataset.METAINFO['classes']
    unknown = [name for name in (metainfo or {}).get('classes', ()) if name not in known]
    if unknown:
        raise ValueError(f'metainfo.classes has unknown classes {unknown}: nuScenes detection has {list(known)}')
