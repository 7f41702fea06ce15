"""Writing stage: which agents are to be predicted, as nuScenes' prediction challenge says it; an annotator in, JSON files out.

`maps/prediction/prediction_scenes.json` is the challenge's own file, `{scene name: ['instance_sample', ...]}`. The devkit's
`get_prediction_challenge_split` picks the scenes of 'train' (the devkit's train scenes from the 201st on), 'train_val' (its
first 200) and 'val' out of it by their names. `maps/prediction/maneuvers.json`, `{'instance_sample': maneuver}`, is ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from projects.synthetic_nuscenes.annotate import Annotator, Record
from projects.synthetic_nuscenes.maneuvers import HORIZON_S
from projects.synthetic_nuscenes.naming import token
from projects.synthetic_nuscenes.taxonomy import CYCLES, VEHICLES

PREDICTION = 'prediction'
"""Name of the rows that are no table."""
_FUTURE_KEYFRAMES = int(2 * HORIZON_S)


def prediction_rows(annotator: Annotator) -> list[Record]:
    """Rows of scene, token and maneuver: all vehicles that are not parked and are annotated for 6 s more, in order of time."""
    scene, rows = annotator.scene, []
    for index, agent in enumerate(scene.agents):
        if agent.kind_name not in (*VEHICLES, *CYCLES) or agent.is_static():
            continue
        log, frames = scene.maneuvers.get(agent.name), annotator.annotated_keyframes(index)
        for frame in frames[:-_FUTURE_KEYFRAMES]:
            name = f'{annotator.instance_token(index)}_{token(annotator.seed, scene.name, "sample", frame)}'
            word = 'keep' if log is None else log.at(annotator.times_s[frame])
            rows.append({'scene': scene.name, 'frame': frame, 'token': name, 'maneuver': word})
    return sorted(rows, key=lambda row: row['frame'])


def write_split(root: Path, scene_names: Sequence[str], rows: Sequence[Record]) -> None:
    """Write both files; every scene is in the first one, also one without a token."""
    tokens: dict[str, list[str]] = {name: [] for name in scene_names}
    for row in rows:
        tokens[row['scene']].append(row['token'])
    folder = root / 'maps' / 'prediction'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'prediction_scenes.json').write_text(json.dumps(tokens, indent=0))
    maneuvers = {row['token']: row['maneuver'] for row in rows}
    (folder / 'maneuvers.json').write_text(json.dumps(maneuvers, indent=0, sort_keys=True))
