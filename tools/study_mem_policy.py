#!/usr/bin/env python
"""Measures which frames a full working memory should keep: a drive that stops and turns, without training; prints a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3], help='of houses and trucks beside the way')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study_mem_policy'), help='folder of report.html')
    args = parser.parse_args(argv)
    from projects.reports import report_study
    from projects.studies.mem_policy.run import compare
    table = compare(args.seeds)
    print(table)
    report_study(args.out / 'report.html', 'Which frames a full memory should keep', table,
                 scene=(None, 'No scene: the drive is made of visible cells, without boxes or images.'))


if __name__ == '__main__':
    from projects.memfusion.runtime.errors import run_cli
    run_cli(main)
