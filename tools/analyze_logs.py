#!/usr/bin/env python
"""Plots losses and metrics of one run or several, and says what an iteration took.

Serves instead of mmdet3d's analyze_logs.py, which needs seaborn and reads one file per run.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
warnings.filterwarnings('ignore')  # of libraries that we cannot change

from projects.memfusion.runtime import run_cli


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', type=Path, nargs='+', help='work dirs, or scalars.json files')
    parser.add_argument('--keys', nargs='+', default=['loss'], help='what is plotted, e.g. loss grad_norm NDS; default: loss')
    parser.add_argument('--names', nargs='+', help='what the runs are called; default: the names of their folders')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='picture, .png, .pdf or .svg')
    args = parser.parse_args(argv)
    if args.out.suffix not in ('.png', '.pdf', '.svg'):
        parser.error(f'--out {args.out}: must end in .png, .pdf or .svg')
    if args.names and len(args.names) != len(args.runs):
        parser.error(f'--names: {len(args.names)} names for {len(args.runs)} runs')
    from projects.demos.logs import plot_logs, read_runs
    print('\n'.join(plot_logs(read_runs(args.runs, args.names), args.keys, args.out)))


if __name__ == '__main__':
    run_cli(main)
