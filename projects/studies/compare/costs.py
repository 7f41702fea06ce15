"""Study. In: rows. Out: what a frame of each costs at full size, a file each; finished ones are skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmengine.logging import print_log

from projects.benchmarks.frame_cost import measure_frame
from projects.memfusion.data.files import write_text

from .results import cost_path
from .rows import Compared


def count_costs(results: Path, rows: Sequence[Compared]) -> None:
    """Measures the rows that have no cost yet."""
    results.mkdir(parents=True, exist_ok=True)
    for row in rows:
        path = cost_path(results, row.name)
        if path.is_file():
            continue
        print_log(f'cost of {row.title}: {row.full}', 'current')
        cost = asdict(measure_frame(row.full))
        write_text(path, json.dumps(dict(row=row.name, config=row.full, **cost), indent=1) + '\n')
