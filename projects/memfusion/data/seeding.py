"""Data. Seeds all draws of an item by (seed, epoch, index): a resumed run sees what the uninterrupted run saw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmdet3d.datasets import CBGSDataset, NuScenesDataset
from mmdet3d.registry import DATASETS

from .sequence_fields import load_info_file


def item_seed(seed: int, epoch: int, index: int) -> int:
    """A 32-bit seed that depends on all three; neighbours are unrelated."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0])


_active = False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs its body with python's, numpy's and torch's CPU generators seeded, then puts their states back.

    Inside another `seeded` it does nothing: the outermost index (that of a resampling wrapper, say) decides.
    """
    global _active
    if _active:
        yield
        return
    _active = True
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        _active = False
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


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
        kwargs: NuScenesDataset's own arguments.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        self.seed, self._counter = seed, EpochCounter()
        check_classes(kwargs.get('metainfo'))
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The infos; DataError names a file that is missing, unreadable or of another version."""
        infos, metainfo = load_info_file(self.ann_file)
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        return [self.parse_data_info(info) for info in infos]

    def set_epoch(self, epoch: int) -> None:
        """Tells all workers which epoch they are in."""
        self._counter.set(epoch)

    def __getitem__(self, index: int) -> dict:
        """One item of the pipeline, seeded; in testing nothing is random and nothing is seeded."""
        if self.test_mode:
            return super().__getitem__(index)
        with seeded(self._counter.item_seed(self.seed, index)):
            return super().__getitem__(index)


@DATASETS.register_module()
class SeededCBGSDataset(CBGSDataset):
    """mmdet3d's CBGSDataset: the same resampling for a given seed, and repeated items get different augmentations."""

    def __init__(self, dataset: dict, seed: int = 0) -> None:
        self.seed, self._counter = seed, EpochCounter()
        super().__init__(dataset=dataset)

    def set_epoch(self, epoch: int) -> None:
        """Tells all workers which epoch they are in."""
        self._counter.set(epoch)

    def _get_sample_indices(self, dataset: NuScenesDataset) -> list[int]:
        with seeded(item_seed(self.seed, 0, 0)):
            return super()._get_sample_indices(dataset)

    def __getitem__(self, index: int) -> dict:
        with seeded(self._counter.item_seed(self.seed, index)):
            return super().__getitem__(index)


def check_classes(metainfo: dict | None) -> None:
    """Raises ValueError that names classes nuScenes detection does not have."""
    known = NuScenesDataset.METAINFO['classes']
    unknown = [name for name in (metainfo or {}).get('classes', ()) if name not in known]
    if unknown:
        raise ValueError(f'metainfo.classes has unknown classes {unknown}: nuScenes detection has {list(known)}')
