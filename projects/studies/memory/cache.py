"""Study. In: a trained plain detector and a data set. Out: the BEV features of every frame, as clips to train and test on.

Everything before the temporal module is frozen in the study, so each frame is encoded once instead of once a row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import Box3DMode, Det3DDataSample, LiDARInstance3DBoxes, PointData
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor

from projects.memfusion.data.seeding import item_seed, seeded
from projects.memfusion.detectors.encoded_clip import EncodedClip
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.errors import UserError

_SAMPLE_TYPES = (Det3DDataSample, InstanceData, PointData, LiDARInstance3DBoxes, Box3DMode)

@dataclass
class FeatureCache:
    """Encoded frames in data-set order, on the host; V variants of each, augmented alike within a variant's scene.

    Attributes:
        bev: (V, N, C, H, W) float16.
        observed: (V, N, 1, H, W) bool.
        samples: V lists of N frames with their truth.
        scenes: {scene_token: positions in time order}.
    """

    bev: Tensor
    observed: Tensor
    samples: list[list[Det3DDataSample]]
    scenes: dict[str, list[int]]

    def clip(self, variant: int, end: int, length: int) -> tuple[list[int], list[Det3DDataSample], list[bool]]:
        """Positions, frames and validity of the clip that ends at position `end`; what lies before the scene is padding."""
        scene = self.scenes[self.samples[variant][end].metainfo['scene_token']]
        at = scene.index(end)
        wanted = [at - back for back in range(length - 1, -1, -1)]
        positions = [scene[max(i, 0)] for i in wanted]
        valid = [i >= 0 for i in wanted]
        samples = [self.samples[variant][p] if ok else padding_of(self.samples[variant][p]) for p, ok in zip(positions, valid)]
        return positions, samples, valid

    def batch(self, variants: Sequence[int], ends: Sequence[int], length: int,
              device: torch.device | str = 'cpu') -> tuple[EncodedClip, list[Det3DDataSample]]:
        """B clips of `length` frames, and their B x T frames, clip-major, on the model's device."""
        bev, observed, valid, samples = [], [], [], []
        for variant, end in zip(variants, ends):
            positions, frames, ok = self.clip(variant, end, length)
            bev.append(self.bev[variant, positions].float() * torch.tensor(ok)[:, None, None, None])
            observed.append(self.observed[variant, positions])
            valid.append(tuple(ok))
            samples += frames
        clip = EncodedClip(torch.stack(bev).to(device), torch.stack(observed).to(device), tuple(valid))
        return clip, [sample.to(device) for sample in samples]


def padding_of(sample: Det3DDataSample) -> Det3DDataSample:
    """The frame as padding: not valid, and no scene starts with it."""
    padded = copy.copy(sample)
    padded.set_metainfo(dict(frame_valid=False, is_scene_start=False))
    return padded


@torch.no_grad()
def encode_split(model: Any, dataset_cfg: Config, variants: int, seed: int, batch_size: int = 8) -> FeatureCache:
    """Runs the frozen stack over a data set.

    Args:
        model: the plain detector, in eval mode.
        dataset_cfg: a NuScenesSequenceDataset; with augmentation in its pipeline every variant draws one per scene.
        variants: passes over the data.
        seed: of the augmentations.
    """
    dataset = DATASETS.build({**dataset_cfg, 'seq_len': 1, 'stride': 1})
    dataset.full_init()
    scenes: dict[str, list[int]] = {}
    for position in np.lexsort((dataset.frame_indices, dataset.scene_tokens)).tolist():
        scenes.setdefault(dataset.scene_tokens[position], []).append(position)
    number = {token: i for i, token in enumerate(sorted(scenes))}
    bev: list[list[Tensor]] = []
    observed: list[list[Tensor]] = []
    samples: list[list[Det3DDataSample]] = []
    for variant in range(variants):
        bev.append([])
        observed.append([])
        samples.append([])
        for start in range(0, len(dataset.scene_tokens), batch_size):
            frames = []
            for position in range(start, min(start + batch_size, len(dataset.scene_tokens))):
                # The same draw for every frame of the scene, so that they make clips.
                with seeded(item_seed(seed, variant, number[dataset.scene_tokens[position]])):
                    frames.append(dataset[position][0])
            data = model.data_preprocessor(pseudo_collate([[frame] for frame in frames]))
            clip = model.encode(data['inputs'])
            bev[-1].append(clip.bev[:, 0].half().cpu())
            observed[-1].append(clip.observed[:, 0].cpu())
            samples[-1] += [sample.cpu() for sample in data['data_samples']]
        print_log(f'encoded pass {variant + 1} of {variants}: {len(samples[-1])} frames', 'current')
    stacked = [torch.stack([torch.cat(one) for one in kind]) for kind in (bev, observed)]
    return FeatureCache(stacked[0], stacked[1], samples, scenes)


def load_or_encode(path: Path, model: Any, dataset_cfg: Config, variants: int, seed: int) -> FeatureCache:
    """The cache in `path`, made first where it is missing; written whole or not at all."""
    if not path.is_file():
        cache = encode_split(model, dataset_cfg, variants, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(cache), path.with_suffix('.partial'))
        path.with_suffix('.partial').replace(path)
    return read_cache(path)


def read_cache(path: Path) -> FeatureCache:
    """The cache in `path`; its features stay on disk until they are used.

    Raises:
        UserError: naming the file, if it is damaged, or holds anything but features and frames.
    """
    try:
        return FeatureCache(**safe_load(path, types=_SAMPLE_TYPES, mmap=True))
    except UserError as error:
        raise UserError(f'{error}. Features are stored anew where the file is missing: remove it') from error
