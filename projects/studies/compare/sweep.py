"""Study. In: a trained row and stored LiDAR features. Out: its mAP with wrong calibrations and with another scene's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import ConcatDataset

from projects.studies.fusion.frames import FusedFrames, camera_dataset
from projects.studies.fusion.train_row import official_scores, predict
from projects.studies.memory.cache import FeatureCache
from projects.studies.robustness.conditions import Condition, noise, with_condition
from projects.studies.robustness.run import Scores

from .rows import ROTATIONS_DEG

OTHER = 'images other_scene'


def conditions_of(root: Path) -> list[Condition]:
    """Images of another scene of this world, and each rotation; the clean one is the row's own test."""
    donor = dict(type='ReplaceImages', mode='other_scene', ann_file=f'{root}/nuscenes_infos_val.pkl')
    return [Condition(OTHER, 'images', 0.0, (donor,)),
            *(Condition(rotation_name(deg), 'rotation_deg', deg, (noise(deg),)) for deg in ROTATIONS_DEG)]


def rotation_name(deg: float) -> str:
    """Key of the stored scores."""
    return f'rotation {deg:g} deg'


def first_worlds(cache: FeatureCache, count: int, worlds: int) -> FeatureCache:
    """The frames of the first `count` of `worlds` worlds, which hold as many frames each."""
    kept = len(cache.samples[0]) // worlds * count
    scenes = {name: positions for name, positions in cache.scenes.items() if positions[-1] < kept}
    return FeatureCache(cache.bev[:, :kept], cache.observed[:, :kept], [variant[:kept] for variant in cache.samples], scenes)


def run_sweep(model: Any, cfg: Config, testing: FusedFrames, roots: Sequence[Path], folder: Path) -> dict[str, list[Scores]]:
    """{condition: mAP and NDS of each world}.

    Args:
        model: trained.
        cfg: the row's.
        testing: the stored features of these worlds' frames.
        roots: the worlds.
        folder: for submissions.
    """
    found: dict[str, list[Scores]] = {}
    share = len(testing.samples[0]) // len(roots)
    for number, condition in enumerate(conditions_of(roots[0])):
        parts = [camera_dataset(with_condition(cfg.test_dataloader, conditions_of(root)[number]).dataset, [root])
                 for root in roots]
        cameras = ConcatDataset([world for part in parts if part is not None for world in part.datasets])
        faulty = replace(testing, cameras=cameras, drawn=0)
        boxes = predict(model, faulty)
        found[condition.name] = [
            official_scores(cfg, boxes[i * share:(i + 1) * share], root, folder / root.name)
            for i, root in enumerate(roots)]
    return found

