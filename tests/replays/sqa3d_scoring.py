"""Replays SQA3D scores: every row by four rules, the cleaning of answers, and LEO's metrics of all rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

from projects.spatial_mllm.scoring import sqa3d

FRACTION = 1e-12
"""Tolerance of LEO's metrics: the order of a sum."""


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """A difference per row and rule, and per metric."""
    del device  # text has none
    content = json.loads(path.read_text())
    rows = content['rows']
    table = sqa3d.leo_table((sqa3d.question_type(row['question']), *sqa3d.leo(row['prediction'], row['answers']))
                            for row in rows)
    published = content['aggregate']
    differences = [(f'aggregate {name}', abs(table[name] - published[name]) / FRACTION if name in table and name in published
                    else math.inf) for name in {**table, **published}]
    for number, row in enumerate(rows):
        asked = row['prediction'], row['answers']
        em, refined = sqa3d.leo(*asked)
        ours = dict(type=sqa3d.TYPES.index(sqa3d.question_type(row['question'])), strict=sqa3d.strict(*asked), em=em,
                    em_refined=refined, llm_script=sqa3d.script(*asked), cleaned_prediction=sqa3d.clean(row['prediction']),
                    cleaned_answers=[sqa3d.clean(answer) for answer in row['answers']])
        differences += [(f'row {number} {name}', 0.0 if value == row[name] else math.inf) for name, value in ours.items()]
    return differences
