"""Study, the order of events. In: worlds, rows and seeds. Out: one result file per row and seed; finished ones are skipped."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import print_log

from projects.geometry.calib_noise import sample_rigid_noise
from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.launch import init_registry
from projects.studies.compare.images import image_weights
from projects.studies.compare.run import rounded
from projects.studies.fusion.rows import WORLDS
from projects.studies.fusion.run import Study, load_row, prepare
from projects.studies.fusion.train_row import build_row, new_model
from projects.studies.memory.descent import Descent
from projects.studies.memory.rows import Budget
from projects.studies.memory.run import run_tool

from .frames import PosedFrames
from .images import SeenImages, load_or_see
from .look import CellLook, QueryLook
from .rows import CONDITIONS, DESIGNS, FUSION, IMAGE_VARIANTS, NOISE_DEG, PAIRS, Encoded, changed, config_of

VAL_SCENES = ('scene-0103', 'scene-0916')
_BATCH = 6


@dataclass(frozen=True)
class Seen:
    """Stored image features of a seed: of the training frames, of the test frames, and of these from a rig never seen."""

    training: SeenImages
    testing: SeenImages
    other_rig: SeenImages


def result_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'{row}-{seed}.json'


def make_rigs(data_root: Path, worlds: int = WORLDS) -> list[Path]:
    """Folders of the validation scenes as another car's cameras see them, made and prepared where they are missing."""
    roots = [data_root / f'rig{seed}' for seed in range(worlds)]
    for seed, root in enumerate(roots):
        if not (root / 'nuscenes_infos_val.pkl').is_file():
            run_tool('tools/create_synthetic_nuscenes.py', '--preset', 'tiny', '--seed', str(seed), '--rig', 'other',
                     '--scenes', *VAL_SCENES, '--out', str(root))
            run_tool('tools/create_data.py', 'nuscenes', '--root-path', str(root), '--version', 'v1.0-mini',
                     '--skip-gt-database')
    return roots


def run_rows(roots: Sequence[Path], rigs: Sequence[Path], out: Path, results: Path, plan: Sequence[tuple[Encoded, int]],
             budget: Budget, image_steps: int) -> None:
    """Trains and tests what is not finished, in this order.

    Args:
        roots: the worlds.
        rigs: their validation scenes from the other rig.
        out: folder of weights and features, as tools/compare_fusions.py lays it out: what lies there is used.
        results: folder of the result files.
        plan: rows and seeds.
        budget: of every row.
        image_steps: on 2-D boxes, for the image branch.
    """
    init_registry()
    missing = [(row, seed) for row, seed in plan if not result_path(results, row.name, seed).is_file()]
    studies: dict[int, tuple[Study, Seen]] = {}
    for number, (row, seed) in enumerate(missing):
        if seed not in studies:
            images = Budget(iterations=image_steps, clips=4, lr=2e-3)
            studies = {seed: prepare_seed(roots, rigs, out, seed, images)}
        print_log(f'{row.title}, seed {seed}: {number + 1} of {len(missing)}', 'current')
        run_row(*studies[seed], row, budget, result_path(results, row.name, seed))


def prepare_seed(roots: Sequence[Path], rigs: Sequence[Path], out: Path, seed: int, images: Budget) -> tuple[Study, Seen]:
    """What all rows of a seed share: LiDAR weights and features, image features."""
    study = prepare(roots, out, seed)
    weights = image_weights(roots, study.folder, seed, images)
    cfg = load_row(config_of(FUSION), roots[0])
    model = build_row(cfg, study.weights, study.folder / 'pretrain', seed)
    model.load_state_dict({name: value for name, value in weights.items() if name in model.state_dict()}, strict=False)
    parts = (('train', cfg.train_dataloader, roots, study.training, IMAGE_VARIANTS),
             ('test', cfg.test_dataloader, roots, study.testing, 1), ('rig', cfg.test_dataloader, rigs, study.testing, 1))
    return study, Seen(*(
        load_or_see(study.folder / f'{name}_images.pt', model, of_any_cameras(loader.dataset), worlds, cache.samples[0],
                    variants, seed)
        for name, loader, worlds, cache, variants in parts))


def of_any_cameras(dataset: ConfigDict) -> ConfigDict:
    """The data set's config, which takes the cameras that the frames have."""
    dataset = copy.deepcopy(dataset)
    for step in dataset.pipeline:
        if step.type == 'LoadMultiViewImages':
            step.cam_names = None
    return dataset


def run_row(study: Study, seen: Seen, row: Encoded, budget: Budget, path: Path) -> None:
    """Trains and tests both designs with one encoding; the scores are stored when they are whole."""
    result: dict[str, Any] = dict(row=row.name, title=row.title, seed=study.seed, steps=budget.iterations,
                                  frames_a_step=budget.clips)
    for design in DESIGNS:
        cfg = changed(load_row(config_of(design), study.roots[0]), row, design)
        model = new_model(cfg, study.seed)
        looking = CellLook(model.fusion_layer, 2 * len(PAIRS)) if design == FUSION else QueryLook(
            model.pts_bbox_head, 2 * len(PAIRS))
        training = PosedFrames(study.training, seen.training, cfg.class_names)
        seconds = train(looking, training, budget, study.seed)
        result[design] = dict(train_seconds=seconds, **test(looking, study, seen, cfg.class_names))
        said = ', '.join(f'{name} {result[design][name]["accuracy"]:.1f} ({result[design][name]["found"]:.1f} found)'
                         for name in CONDITIONS)
        print_log(f'  {DESIGNS[design]}: {said}, {seconds:.0f} s', 'current')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(rounded(result), indent=1) + '\n')


def train(looking: torch.nn.Module, frames: PosedFrames, budget: Budget, seed: int) -> float:
    """Trains on stored frames, the same draws for every row; returns the seconds it took."""
    descent = Descent(looking.parameters(), budget)
    draw = torch.Generator().manual_seed(seed)
    looking.train()
    start, cache = time.perf_counter(), frames.cache
    for _ in range(budget.iterations):
        variants, ends = (torch.randint(count, (budget.clips,), generator=draw).tolist()
                          for count in (len(cache.samples), len(cache.samples[0])))
        batch = frames.batch(variants, ends)
        if not batch.objects.there.any():
            continue
        loss = looking(batch.bev, batch.levels, batch.rig, batch.objects).loss(batch.objects, batch.places)
        descent.step(loss)
    return time.perf_counter() - start


@torch.no_grad()
def test(looking: torch.nn.Module, study: Study, seen: Seen, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """{condition: accuracies in percent}; all seeds and rows meet the same errors and the same other frames."""
    looking.eval()
    cache = study.testing
    count, cameras = seen.testing.rigs[0].cam_valid.shape
    noise = sample_rigid_noise((count, cameras), NOISE_DEG, 0.0, torch.Generator().manual_seed(0))
    scene = len(next(iter(cache.scenes.values())))
    other = [(position + scene) % count for position in range(count)]
    shown = dict(own=PosedFrames(cache, seen.testing, classes), noise=PosedFrames(cache, seen.testing, classes, noise),
                 rig=PosedFrames(cache, seen.other_rig, classes), other=PosedFrames(cache, seen.testing, classes, donor=other))
    return {name: accuracies(looking, frames) for name, frames in shown.items()}


def accuracies(looking: torch.nn.Module, frames: PosedFrames) -> dict[str, float]:
    """Percent of the objects that a camera sees whose class is the right one of its pair: `accuracy` of all, of each pair by
    name; of those whose token has the most attention, or its neighbour: `found`; and `objects`, how many there are."""
    right, pair, met = [], [], []
    for start in range(0, len(frames.cache.samples[0]), _BATCH):
        ends = list(range(start, min(start + _BATCH, len(frames.cache.samples[0]))))
        batch = frames.batch([0] * len(ends), ends)
        look = looking(batch.bev, batch.levels, batch.rig, batch.objects)
        label, counted = batch.objects.labels, batch.objects.there & ~batch.places[..., 0].isnan().all(1)
        mine, twin = (look.logits.gather(2, one[..., None])[..., 0] for one in (label, label ^ 1))
        right.append((mine > twin)[counted])
        met.append(look.found(batch.places)[counted])
        pair.append(label[counted] // 2)
    correct, pairs = torch.cat(right).float(), torch.cat(pair)
    found = {name: 100 * float(correct[pairs == number].mean()) for number, name in enumerate(PAIRS) if (pairs == number).any()}
    share = 100 * float(torch.cat(met).float().mean())
    return {'accuracy': 100 * float(correct.mean()), 'found': share, **found, 'objects': float(len(correct))}
