"""Demo, viewer. In: a result file of tools/test.py, or its folder. Out: boxes by sample; the config that it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from projects.memfusion.runtime.errors import UserError

_NAMES = ('results_nusc.json', 'tracking_results.json')
_NEEDED = ('translation', 'size', 'rotation')
_PARENTS = 3
"""A submission lies in DIR/pred_instances_3d, and DIR is often the work dir or a folder in it."""

Results = Mapping[str, Sequence[Mapping[str, Any]]]


def find_results(path: Path) -> Path:
    """The result file that a path means: itself, or the only one below a folder.

    Raises:
        UserError: where a folder holds none or several, or the file is of another kind.
    """
    if path.is_file():
        if path.suffix != '.json':
            raise UserError(f'{path} is neither an info file (.pkl) nor results (.json)')
        return path
    found = sorted(file for name in _NAMES for file in path.rglob(name))
    if len(found) > 1:
        raise UserError(f'{path} holds {len(found)} result files: give one of them, e.g. {found[0]}')
    if not found:
        raise UserError(f'{path} holds neither data (info files, tables or a keyframe) nor results ({" or ".join(_NAMES)})')
    return found[0]


def read_results(path: Path) -> Results:
    """`{sample_token: entries}` of a submission of detection or of tracking; raises as `read_submission`."""
    return read_submission(path)['results']


def read_detections(path: Path) -> dict[str, Any]:
    """A submission of detection, whole; raises as `read_submission`, and for tracks."""
    content = read_submission(path)
    if any('detection_name' not in entry for entries in content['results'].values() for entry in entries):
        raise UserError(f'{path} holds tracks already: give a submission of detection')
    return content


def read_submission(path: Path) -> dict[str, Any]:
    """A submission of detection or of tracking: `results` by sample token, `meta` where it has any.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    remedy = 'give what `tools/test.py --cfg-options test_evaluator.jsonfile_prefix=DIR` wrote'
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'{path} is no JSON file ({error}); {remedy}') from error
    results = content.get('results') if isinstance(content, dict) else None
    if not isinstance(results, dict) or not all(isinstance(entries, list) for entries in results.values()):
        raise UserError(f'{path} is no nuScenes submission (a dict with results by sample token); {remedy}')
    for token, entries in results.items():
        for entry in entries:
            missing = [key for key in _NEEDED if key not in entry]
            missing += [key for key in ('name', 'score') if not {f'detection_{key}', f'tracking_{key}'} & entry.keys()]
            if missing:
                raise UserError(f'{path}: a box of sample {token} has no {missing[0]}; {remedy}')
    return content


def config_beside(results: Path) -> Path | None:
    """The config that tools/test.py left in the folder of a result file or above it; None where there is none or several."""
    for folder in list(results.resolve().parents)[:_PARENTS]:
        found = sorted(folder.glob('*.py'))
        if found:
            return found[0] if len(found) == 1 else None
    return None
