"""Study. In: worlds, an image branch that stays as it is. Out: image features and rigs of all frames, stored once a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from torch import Tensor

from projects.memfusion.data.seeding import item_seed, seeded
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures import Calibration
from projects.studies.fusion.frames import camera_dataset

_BATCH = 8


@dataclass(frozen=True)
class SeenImages:
    """V augmented views of N frames: levels, (V, N, cameras, C, h, w) float16 each, and rigs, V of N frames."""

    levels: list[Tensor]
    rigs: list[Calibration]

    def take(self, variants: Sequence[int], frames: Sequence[int]) -> tuple[list[Tensor], Calibration]:
        """The features and the rig of B frames, each in one of the views."""
        levels = [level[torch.as_tensor(variants), torch.as_tensor(frames)].float() for level in self.levels]
        return levels, Calibration.cat([self.rigs[variant].select([frame]) for variant, frame in zip(variants, frames)])


def load_or_see(path: Path, model: Any, dataset: ConfigDict, roots: Sequence[Path], frames: Sequence[Det3DDataSample],
                variants: int, seed: int) -> SeenImages:
    """The features in `path`, made first where they are missing; written whole or not at all.

    Args:
        path: of the file.
        model: with the image branch.
        dataset: whose pipeline loads and augments images.
        roots: the worlds.
        frames: whose images they are, in order.
        variants: V.
        seed: of the augmentation.
    """
    if not path.is_file():
        seen = see(model, dataset, roots, frames, variants, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(dict(levels=seen.levels, rigs=[_fields(rig) for rig in seen.rigs]), path.with_suffix('.partial'))
        path.with_suffix('.partial').replace(path)
    stored = safe_load(path, map_location='cpu')
    return SeenImages(stored['levels'], [Calibration(**rig) for rig in stored['rigs']])


@torch.no_grad()
def see(model: Any, dataset: ConfigDict, roots: Sequence[Path], frames: Sequence[Det3DDataSample], variants: int,
        seed: int) -> SeenImages:
    """Runs the image branch over the worlds.

    Raises:
        UserError: where the images are of other frames than the LiDAR features.
    """
    cameras = camera_dataset(dataset, roots)
    assert cameras is not None
    model.eval()
    if len(cameras) != len(frames):
        raise UserError(f'{roots[0].parent}: the worlds have {len(cameras)} frames, but the stored LiDAR features '
                        f'{len(frames)}: they are of other worlds; remove the stored features or the worlds')
    levels: list[list[list[Tensor]]] = []
    rigs = []
    for variant in range(variants):
        levels.append([])
        seen = []
        for start in range(0, len(cameras), _BATCH):
            loaded = []
            for position in range(start, min(start + _BATCH, len(cameras))):
                with seeded(item_seed(seed, variant, position)):
                    packed = cameras[position][0]
                token, wanted = (one.metainfo['sample_token'] for one in (packed['data_samples'], frames[position]))
                if token != wanted:
                    raise UserError(f'{roots[0].parent}: frame {position} is {token}, but the stored LiDAR features are of '
                                    f'{wanted}: they are of other worlds; remove the stored features or the worlds')
                loaded.append(packed['inputs']['cameras'])
            rows = range(len(loaded))
            images = model.encode_images(model.data_preprocessor.stack_cameras(loaded), rows, rows)
            levels[-1].append([level.half().cpu() for level in images.levels])
            seen.append(images.calibration.to('cpu'))
        rigs.append(Calibration.cat(seen))
        print_log(f'images, pass {variant + 1} of {variants}: {len(cameras)} frames', 'current')
    return SeenImages([torch.stack([torch.cat([part[number] for part in parts]) for parts in levels])
                       for number in range(len(levels[0][0]))], rigs)


def _fields(rig: Calibration) -> dict[str, Any]:
    return {field.name: getattr(rig, field.name) for field in fields(rig) if field.init}
