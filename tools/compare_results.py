#!/usr/bin/env python
"""Two result files of the same data side by side: what each found by class, range, points, visibility and speed, what it took
for what, and pictures of the boxes that one of them found alone.

Each is read at its own score threshold, of --false-positives a frame; docs/metrics.md says what counts.
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

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import run_cli


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('first', type=Path, help='submission of tools/test.py, or its folder; e.g. without memory')
    parser.add_argument('second', type=Path, help='another one; e.g. with memory')
    parser.add_argument('--data', type=Path, required=True, help='data set root or info file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the tables and pictures')
    parser.add_argument('--names', nargs=2, default=('first', 'second'), metavar=('FIRST', 'SECOND'), help='their names')
    parser.add_argument('--match-m', type=float, default=2.0, help='a box is found within this distance; default 2')
    parser.add_argument('--false-positives', type=float, default=1.0, help='of a frame, sets the score threshold; default 1')
    parser.add_argument('--range-m', type=float, help="from the ego, what counts; default: each class's official range")
    parser.add_argument('--pictures', type=int, default=6, help='of what each found alone, at most; default 6')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    from projects.demos.compare_results import CompareOptions, compare_results
    options = CompareOptions(tuple(args.names), args.match_m, args.false_positives, args.range_m, args.pictures)
    print('\n'.join(compare_results((args.first, args.second), args.data, args.out, options)))
    print(f'pictures in {args.out}')


if __name__ == '__main__':
    run_cli(main)
