"""Demo, tracking. In: submissions of detection, their data. Out: the same boxes as tracks, and the devkit's scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from projects.memfusion.metrics.tracking.evaluate import evaluate_tracking, format_scores
from projects.memfusion.metrics.tracking.submission import track_results
from projects.memfusion.metrics.tracking.tracker import MAX_DISTANCE_M
from projects.memfusion.runtime.errors import UserError

from .viewer.results import find_results, read_detections
from .viewer.scene import read_infos

_META = dict(use_camera=False, use_lidar=True, use_radar=False, use_map=False, use_external=False)


def track(paths: Sequence[Path], names: Sequence[str], data: Path, out: Path, max_age: int = 3, score_thr: float = 0.0,
          max_distance_m: Mapping[str, float] = MAX_DISTANCE_M) -> list[str]:
    """Writes `NAME/tracking_results.json` for each result file, and `tracking.txt` and `tracking.json` with the scores of all.

    Args:
        paths: of submissions of detection, or folders that hold one.
        names: of them; also folders in `out`.
        data: data set root or info file that they were made from, beside its tables.
        max_age, max_distance_m: as GreedyTracker's; boxes that score less than `score_thr` are left out.

    Returns:
        The lines of the table.

    Raises:
        UserError, ValueError: naming what cannot be read or scored.
    """
    if len(names) != len(set(names)) or len(names) != len(paths):
        raise UserError(f'--names {" ".join(names)}: give each of the {len(paths)} result files a name of its own')
    scores = {}
    for path, name in zip(paths, names):
        file = find_results(path)
        content = read_detections(file)
        results = content['results']
        found = read_infos(data, results.keys())
        lost = [info['token'] for info in found.infos if info['token'] not in results]
        if lost:
            raise UserError(f'{file} lacks {len(lost)} keyframes of its scenes, e.g. {lost[0]}: tracks need whole scenes')
        tracked = track_results(results, found.infos, max_distance_m, max_age, score_thr)
        target = out / name / 'tracking_results.json'
        target.parent.mkdir(parents=True, exist_ok=True)
        meta = content.get('meta') or _META
        target.write_text(json.dumps(dict(meta=meta, results=tracked)))
        scores[name] = evaluate_tracking(target, found.infos, found.root, found.version)
    lines = format_scores(scores)
    (out / 'tracking.txt').write_text('\n'.join(lines) + '\n')
    (out / 'tracking.json').write_text(json.dumps(scores))
    return lines
