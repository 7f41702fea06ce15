"""Samplers for streaming. In: a NuScenesSequenceDataset. Out: indices in time order, a scene per slot, scenes per rank."""

from __future__ import annotations

from collections.abc import Iterator

from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from .nuscenes_sequence import NuScenesSequenceDataset


@DATA_SAMPLERS.register_module()
class SceneSampler(Sampler[int]):
    """Every frame once, scene after scene, in time order; whole scenes are dealt to ranks, longest first to the least loaded.

    Nothing is padded or repeated: ranks may have different numbers of frames, or none.
    """

    def __init__(self, dataset: NuScenesSequenceDataset, shuffle: bool = False, seed: int | None = None) -> None:
        del seed  # given by build_dataloader to every sampler; there is nothing random here
        if shuffle:
            raise ValueError('SceneSampler keeps time order: shuffle must be False')
        if not isinstance(dataset, NuScenesSequenceDataset):
            raise TypeError(f'SceneSampler needs a NuScenesSequenceDataset, got {type(dataset).__name__}')
        dataset.full_init()
        scenes: dict[str, list[int]] = {}
        for index, end in enumerate(dataset.clip_ends):
            scenes.setdefault(dataset.scene_tokens[end], []).append(index)
        for indices in scenes.values():
            indices.sort(key=lambda i: dataset.frame_indices[dataset.clip_ends[i]])
        rank, world_size = get_dist_info()
        loads = [0] * world_size
        self.scenes: list[list[int]] = []
        for indices in sorted(scenes.values(), key=len, reverse=True):
            target = loads.index(min(loads))
            loads[target] += len(indices)
            if target == rank:
                self.scenes.append(indices)

    def __iter__(self) -> Iterator[int]:
        return (index for scene in self.scenes for index in scene)

    def __len__(self) -> int:
        return sum(map(len, self.scenes))

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes between epochs; DistSamplerSeedHook calls this."""


@DATA_SAMPLERS.register_module()
class SceneBatchSampler(Sampler[list[int]]):
    """Batches for streaming: each slot follows one scene; when it ends, the slot takes the next one.

    Args:
        sampler: a SceneSampler.
        batch_size: number of slots.
    """

    def __init__(self, sampler: SceneSampler, batch_size: int, drop_last: bool = False) -> None:
        if drop_last:
            raise ValueError('SceneBatchSampler visits every frame: drop_last must be False')
        if not isinstance(sampler, SceneSampler):
            raise TypeError(f'SceneBatchSampler needs a SceneSampler, got {type(sampler).__name__}')
        self.sampler, self.batch_size = sampler, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        waiting = iter(self.sampler.scenes)
        slots = [iter(scene) for _, scene in zip(range(self.batch_size), waiting)]
        while slots:
            batch, alive = [], []
            for slot in slots:
                index = next(slot, None)
                if index is None:
                    slot = iter(next(waiting, []))
                    index = next(slot, None)
                if index is not None:
                    batch.append(index)
                    alive.append(slot)
            slots = alive
            if batch:
                yield batch

    def __len__(self) -> int:
        return sum(1 for _ in self)
