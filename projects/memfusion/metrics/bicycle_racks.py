"""Metric. In: nuScenes' tables. Out: bicycle racks of samples, boxes in the global frame.

The official score leaves out bicycles and motorcycles, truth and predictions, whose centre lies in a rack. Info files
do not tell which objects are racks.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion


def load_bicycle_racks(data_root: str | Path, version: str, sample_tokens: Collection[str]) -> dict[str, list[Box]]:
    """`{sample_token: racks}` of those of these samples that have any.

    Args:
        data_root: folder that holds the folder `version` with the tables.
        version: 'v1.0-mini', 'v1.0-trainval', ...
        sample_tokens: the samples.

    Raises:
        ValueError: naming a table that cannot be read.
    """
    wanted, folder = set(sample_tokens), Path(data_root) / version
    names = {record['token']: record['name'] for record in _read(folder / 'category.json')}
    racks = {record['token'] for record in _read(folder / 'instance.json')
             if names[record['category_token']] == 'static_object.bicycle_rack'}
    found: dict[str, list[Box]] = {}
    for record in _read(folder / 'sample_annotation.json') if racks else []:
        if record['instance_token'] in racks and record['sample_token'] in wanted:
            box = Box(record['translation'], record['size'], Quaternion(record['rotation']))
            found.setdefault(record['sample_token'], []).append(box)
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f'cannot read {path} ({error}): data_root must be the folder with the tables that the info file '
                         'was made from') from error
