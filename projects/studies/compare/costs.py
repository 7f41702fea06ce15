"""Study. In: rows. Out: what a frame of each costs at full size, a file each; finished ones are skipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from projects.memfusion.data.files import write_text

from .results import cost_path
from .rows import Compared


def count_costs(results: Path, rows: Sequence[Compared], measure: Callable[[str], Mapping[str, Any]]) -> None:
    """Measures the rows that have no cost yet.

    Args:
        results: folder of the result files.
        rows: which.
        measure: the path of a config of full size -> parameters, flops, cpu_s, peak_bytes, machine.
    """
    results.mkdir(parents=True, exist_ok=True)
    for row in rows:
        path = cost_path(results, row.name)
        if path.is_file():
            continue
        print_log(f'cost of {row.title}: {row.full}', 'current')
        write_text(path, json.dumps(dict(row=row.name, config=row.full, **measure(row.full)), indent=1) + '\n')
