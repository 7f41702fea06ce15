"""Study. In: a query detector that knows eight frames by heart. Out: its recall of them with wrong rigs and false images.

Rows of the table learn too little in their steps to tell how a query decoder takes a wrong rig; what is known by heart does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from mmengine.logging import print_log

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.checkpoint import safe_load
from projects.memfusion.runtime.launch import init_registry
from projects.studies.robustness.report import break_even

from .overfit import DESIGNS, SENSORS, frames_of, network_of, recall_of

ROTATIONS_DEG = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
TRANSLATIONS_M = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
DRAWS = 3
IMAGES = ('blank', 'other_scene')
Recalls = dict[str, list[float]]


def rotation_name(deg: float) -> str:
    """Key of the stored recalls."""
    return f'rotation {deg:g} deg'


def translation_name(metres: float) -> str:
    """Likewise."""
    return f'translation {100 * metres:g} cm'


def conditions_of(root: Path) -> dict[str, list[tuple[dict[str, Any], ...]]]:
    """{condition: the faults of each draw}; every camera gets an error of its own, as in the other tables."""
    def noise(rotation_deg: float, translation_m: float) -> list[tuple[dict[str, Any], ...]]:
        return [(dict(type='CalibrationNoise', rotation_deg=rotation_deg, translation_m=translation_m, prob=1.0, seed=draw),)
                for draw in range(DRAWS)]

    donors = {'other_scene': dict(ann_file=f'{root}/nuscenes_infos_train.pkl')}
    return {'clean': [()], **{kind: [(dict(type='ReplaceImages', mode=kind, **donors.get(kind, {})),)] for kind in IMAGES},
            **{rotation_name(deg): noise(deg, 0.0) for deg in ROTATIONS_DEG},
            **{translation_name(metres): noise(0.0, metres) for metres in TRANSLATIONS_M}}


def measure_noise(design: str, sensors: str, root: Path, weights: Path, path: Path) -> None:
    """Stores {condition: recall of each draw} of the conditions that are not stored yet; nothing where there is no network.

    Args:
        design: one of DESIGNS.
        sensors: one of SENSORS.
        root: the world.
        weights: as `overfit` stored them.
        path: of the result file.
    """
    recalls: Recalls = json.loads(path.read_text())['recalls'] if path.is_file() else {}
    missing = {name: draws for name, draws in conditions_of(root).items() if name not in recalls}
    if not missing or not weights.is_file():
        return
    init_registry()
    cfg, model = network_of(design, sensors, root)
    model.load_state_dict(safe_load(weights, map_location='cpu')['state_dict'])
    for name, draws in missing.items():
        recalls[name] = [round(recall_of(model, *frames_of(cfg, root, faults)), 3) for faults in draws]
    print_log(f'{design}, {SENSORS[sensors]}: {recalls}', 'current')
    write_text(path, json.dumps(dict(row=f'query_{design}', sensors=sensors, recalls=recalls)) + '\n')


def noise_path(results: Path, design: str, sensors: str) -> Path:
    """Where the recalls are stored."""
    return results / f'noise-{design}-{sensors}.json'


def level_at(recalls: Mapping[str, Sequence[float]], names: Mapping[float, str], floor: float) -> float | None:
    """The level, of {level: condition}, at which the mean recall first reaches `floor`; linear in between, None never."""
    return break_even((0.0, *names), [mean(recalls[name]) for name in ('clean', *names.values())], floor)


def noise_section(results: Path) -> list[str]:
    """The table, one line a network; empty where nothing was measured."""
    turned = {deg: rotation_name(deg) for deg in ROTATIONS_DEG}
    moved = {metres: translation_name(metres) for metres in TRANSLATIONS_M}
    heads = ['clean', *(f'{deg:g} deg' for deg in turned), *(f'{100 * metres:g} cm' for metres in moved), 'blank images',
             "another scene's", 'half gone at', 'half gone at']
    rows = []
    for design, title in DESIGNS.items():
        for sensors, said in SENSORS.items():
            path = noise_path(results, design, sensors)
            if not path.is_file():
                continue
            recalls: Recalls = json.loads(path.read_text())['recalls']
            cells = [f'{mean(recalls[name]):.2f}' for name in ('clean', *turned.values(), *moved.values(), *IMAGES)]
            half = (mean(recalls['clean']) + mean(recalls['blank'])) / 2
            cells += [_level(level_at(recalls, turned, half), 1, ROTATIONS_DEG[-1], 'deg'),
                      _level(level_at(recalls, moved, half), 100, TRANSLATIONS_M[-1], 'cm')]
            rows.append(f'| {title}, {said} | ' + ' | '.join(cells) + ' |')
    if not rows:
        return []
    said = ("Recall of these frames with wrong rigs (standard deviations of each camera's rotation, or of its place along each "
            f'axis; mean of {DRAWS} draws), and with false images; the last columns say where half of what the images add to '
            'blank ones is gone, linear in between:')
    return ['\n'.join([said, '', '| network | ' + ' | '.join(heads) + ' |', '|' + '---|' * (1 + len(heads)), *rows])]


def _level(level: float | None, scale: float, last: float, unit: str) -> str:
    return f'above {scale * last:g} {unit}' if level is None else f'{scale * level:.1f} {unit}'
