"""Fills the table of docs/nuscenes_runs.md from the work dirs of its runs: hours, steps and scores, as their logs have them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('PYTHONWARNINGS', 'ignore')

from projects.memfusion.runtime import run_cli


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dirs', type=Path, default=root / 'work_dirs', help='folder of the work dirs, one a config')
    parser.add_argument('--doc', type=Path, default=root / 'docs/nuscenes_runs.md', help='document whose table is rewritten')
    args = parser.parse_args()

    from projects.studies.nuscenes_runs import write_runs

    write_runs(args.work_dirs, args.doc)


if __name__ == '__main__':
    run_cli(main)
