"""Study. In: stored LiDAR features of several worlds and their camera images. Out: fused frames to train and test on.

The LiDAR part is frozen, so each frame goes through it once; the images go through their branch in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import ConfigDict
from mmengine.dataset import ConcatDataset
from torch import Tensor

from projects.memfusion.data.seeding import item_seed, seeded
from projects.memfusion.detectors.encoded_clip import EncodedClip, EncodedImages
from projects.memfusion.structures import CameraFrame
from projects.studies.memory.cache import FeatureCache, encode_split, read_cache

CAMERA_STEPS = ('LoadMultiViewImages', 'ReplaceImages', 'LoadAnnotations3D', 'ProjectImageBoxes', 'CalibrationNoise',
                'ResizeImages', 'CropImages', 'FlipImages')
LABELS = 'gt_img_labels'


@dataclass
class FusedFrames(FeatureCache):
    """Stored LiDAR features that meet their images in `model`. All frames are clips of their own.

    Attributes:
        model: the row's detector; its image branch and fusion layer run in `batch`, with gradients where these are on.
        cameras: the same frames' images and calibration, in the same order; None for a detector without cameras.
        seed: of the images' augmentation and of the calibration noise.
        drawn: batches so far; each has draws of its own.
    """

    model: Any
    cameras: ConcatDataset | None
    seed: int
    drawn: int = 0

    def batch(self, variants: Sequence[int], ends: Sequence[int], length: int = 1,
              device: torch.device | str = 'cpu') -> tuple[EncodedClip, list[Det3DDataSample]]:
        """B clips of one frame, on the model's device.

        Raises:
            ValueError: where clips of more than one frame are asked for.
        """
        if length != 1:
            raise ValueError(f'the fusion study has single frames, but train_dataloader.dataset.seq_len={length}')
        at = (torch.as_tensor(variants), torch.as_tensor(ends))
        bev, images = self.bev[at].float().to(device), None
        samples = [self.samples[variant][end] for variant, end in zip(variants, ends)]
        if self.cameras is not None:
            loaded = [self._load(end, slot, samples[slot]) for slot, end in enumerate(ends)]
            bev, images = self._fuse(bev, [frame for frame, _ in loaded])
            samples = [sample for _, sample in loaded]
        self.drawn += 1
        clip = EncodedClip(bev[:, None], self.observed[at][:, None].to(device), ((True,),) * len(samples), images)
        return clip, [sample.to(device) for sample in samples]

    def _load(self, position: int, slot: int, sample: Det3DDataSample) -> tuple[CameraFrame, Det3DDataSample]:
        """The frame's cameras with the BEV augmentation of its stored features, and the sample with the images' labels."""
        assert self.cameras is not None
        with seeded(item_seed(self.seed, self.drawn, slot)):
            packed = self.cameras[position][0]
        token = packed['data_samples'].metainfo['sample_token']
        if token != sample.metainfo['sample_token']:
            raise ValueError(f'the stored features are of frame {sample.metainfo["sample_token"]}, the images of {token}: '
                             'remove the stored features, they are of other data')
        frame = packed['inputs']['cameras']
        bev_aug = torch.as_tensor(sample.metainfo['bev_aug'], dtype=torch.float32)[None]
        if LABELS in packed['data_samples']:
            sample = sample.new()
            sample.set_field(packed['data_samples'].get(LABELS), LABELS)
        return CameraFrame(frame.images, replace(frame.calibration, bev_aug=bev_aug)), sample

    def _fuse(self, bev: Tensor, frames: Sequence[CameraFrame]) -> tuple[Tensor, EncodedImages]:
        inputs = self.model.data_preprocessor.stack_cameras(frames)
        images = self.model.encode_images(inputs, range(len(frames)), range(len(frames)))
        return self.model.fuse(bev, images)


def read_world(dataset: ConfigDict, root: Path) -> ConfigDict:
    """The data set's config with this world's folder."""
    return ConfigDict({**copy.deepcopy(dataset), 'data_root': f'{root}/'})


def camera_dataset(dataset: ConfigDict, roots: Sequence[Path]) -> ConcatDataset | None:
    """All worlds' images as the config's pipeline makes them, without points and boxes; None where it loads none."""
    steps = [step for step in dataset.pipeline if step['type'] in CAMERA_STEPS]
    if CAMERA_STEPS[0] not in [step['type'] for step in steps]:
        return None
    cameras = ConfigDict({**dataset, 'pipeline': [*steps, dict(type='PackClipFrame', keys=[])]})
    return ConcatDataset([DATASETS.build(read_world(cameras, root)) for root in roots])


def load_or_encode(path: Path, model: Any, dataset: ConfigDict, roots: Sequence[Path], variants: int,
                   seed: int) -> FeatureCache:
    """The LiDAR features of all worlds in `path`, made first where they are missing; written whole or not at all."""
    if not path.is_file():
        partial = path.with_suffix('.partial')
        torch.save(vars(join([encode_split(model, read_world(dataset, root), variants, seed) for root in roots])), partial)
        partial.replace(path)
    return read_cache(path)


def join(worlds: Sequence[FeatureCache]) -> FeatureCache:
    """The frames of several worlds, one world after another."""
    scenes: dict[str, list[int]] = {}
    start = 0
    for number, world in enumerate(worlds):
        scenes.update({f'{number}/{token}': [start + position for position in positions]
                       for token, positions in world.scenes.items()})
        start += len(world.samples[0])
    samples = [[sample for variant in variants for sample in variant] for variants in zip(*[world.samples for world in worlds])]
    bev, observed = (torch.cat([getattr(world, name) for world in worlds], dim=1) for name in ('bev', 'observed'))
    return FeatureCache(bev, observed, samples, scenes)
