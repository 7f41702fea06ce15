"""Writing stage: `generate_dataset` makes a whole nuScenes-format data set; an output folder and settings in."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from projects.synthetic_nuscenes.map_expansion import MAPS, write_maps
from projects.synthetic_nuscenes.naming import token
from projects.synthetic_nuscenes.output_folder import OutputFolder, write_atomically
from projects.synthetic_nuscenes.prediction_split import PREDICTION, write_split
from projects.synthetic_nuscenes.rig import LIDAR_CHANNEL, RIGS, Camera
from projects.synthetic_nuscenes.scene_part import SceneWriter
from projects.synthetic_nuscenes.settings import Settings, make_settings
from projects.synthetic_nuscenes.taxonomy import ATTRIBUTES, CATEGORIES, TABLES, VISIBILITY_LEVELS


def _write_scene(settings: Settings, scene_name: str, root: Path) -> str:
    """Write one scene, its rows last; returns its name."""
    cv2.setNumThreads(1)
    tables = SceneWriter(settings, scene_name, root).write()
    write_atomically(OutputFolder(root, settings).part_path(scene_name), json.dumps(tables, sort_keys=True))
    return scene_name


def _run_scenes(settings: Settings, names: list[str], root: Path, workers: int) -> Iterator[str]:
    """Names of scenes as they are finished."""
    if workers == 1 or len(names) == 1:
        for name in names:
            yield _write_scene(settings, name, root)
        return
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(min(workers, len(names)), mp_context=context) as pool:
        jobs = [pool.submit(_write_scene, settings, name, root) for name in names]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _shared_tables(cameras: Sequence[Camera]) -> dict[str, list[dict[str, Any]]]:
    """Rows that every data set has."""
    channels = [(LIDAR_CHANNEL, 'lidar'), *((camera.channel, 'camera') for camera in cameras)]
    return {
        'category': [{'token': token(0, 'category', name), 'name': name, 'description': ''} for name in CATEGORIES],
        'attribute': [{'token': token(0, 'attribute', name), 'name': name, 'description': ''} for name in ATTRIBUTES],
        'visibility': [
            {'token': level, 'level': name, 'description': f'visibility of whole object is in {name[1:]} %'}
            for level, name in VISIBILITY_LEVELS
        ],
        'sensor': [
            {'token': token(0, 'sensor', channel), 'channel': channel, 'modality': modality}
            for channel, modality in channels
        ],
    }


def generate_dataset(
    out: str | Path,
    preset: str | Settings = 'tiny',
    seed: int = 0,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> bool:
    """Make a data set, or finish one that was interrupted.

    Args:
        out: folder; must be empty, absent, or hold this very data set, whole or in part.
        preset: a preset's name, or settings from `make_settings` (then `seed` is ignored).
        seed: world seed.
        workers: processes; the bytes do not depend on it.
        force: replace a synthetic data set that was made with other settings.
        progress: show a bar.

    Returns:
        False where the whole data set was already there, True where work was done.

    Raises:
        ValueError: a bad value.
        OutputFolderError: the folder holds something else.
    """
    if workers < 1:
        raise ValueError(f'workers must be 1 or more, got {workers}')
    settings = preset if isinstance(preset, Settings) else make_settings(preset, seed)
    root = Path(out)
    folder = OutputFolder(root, settings)
    if folder.is_complete() and not force:
        folder.drop_parts()
        return False
    folder.prepare(force)
    missing = [name for name in settings.scene_names if not folder.part_path(name).exists()]
    done = len(settings.scene_names) - len(missing)
    with tqdm(total=len(settings.scene_names), initial=done, unit='scene', disable=not progress) as bar:
        for name in _run_scenes(settings, missing, root, workers):
            bar.set_postfix_str(name)
            bar.update()
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in (*TABLES, PREDICTION, MAPS)}
    tables.update(_shared_tables(RIGS[settings.rig]))
    for name in settings.scene_names:
        for table, rows in json.loads(folder.part_path(name).read_text()).items():
            tables[table].extend(rows)
    tokens, streets = tables.pop(PREDICTION), tables.pop(MAPS)
    if settings.forecast:
        write_split(root, settings.scene_names, tokens)
        write_maps(root, settings.seed, streets)
    folder.finish(tables)
    return True
