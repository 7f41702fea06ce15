"""Benchmark. In: a prepared data root. Out: seconds of reading an info file of the size of nuScenes' training set."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from projects.common.safe_pickle import load_pickle

from .models import Row, interleave

FRAMES = 28_130
"""Keyframes of nuScenes' training split."""


def measure_infos(data_root: Path, repeats: int, frames: int = FRAMES) -> list[Row]:
    """The data root's training infos, repeated to `frames` frames (without 2-D boxes), by pickle and by the safe reader."""
    content = load_pickle(data_root / 'nuscenes_infos_train.pkl')
    infos = [{key: value for key, value in info.items() if key != 'cam_instances'} for info in content['data_list']]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'infos.pkl'
        content['data_list'] = [pickle.loads(pickle.dumps(infos[index % len(infos)])) for index in range(frames)]
        path.write_bytes(pickle.dumps(content, protocol=4))
        content.clear()
        size_mb = path.stat().st_size / 1e6
        taken = interleave({'pickle.load': lambda: _load(path), 'safe reader': lambda: _use(load_pickle(path))}, repeats)
    base = median(taken['pickle.load'])
    return [Row(name, median(seconds), min(seconds), max(seconds), 'pickle.load', median(seconds) / base,
                f'{frames} frames, {size_mb:.0f} MB') for name, seconds in taken.items()]


def _load(path: Path) -> None:
    with open(path, 'rb') as file:
        _use(pickle.load(file))  # our own file, made above


def _use(content: Any) -> None:
    """Frees the content before the next is read; no cycle keeps any of it."""
    del content
