#!/usr/bin/env python
"""Links the boxes of result files from frame to frame by centre distance and velocity (CenterPoint's greedy tracker).

The tracks are scored with the devkit's tracking evaluation: AMOTA, id switches, ... Several result files, e.g. with memory and
without, stand side by side.
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
    parser.add_argument('results', type=Path, nargs='+', help='submissions of tools/test.py, or their folders')
    parser.add_argument('--data', type=Path, required=True, help='data set root or info file that they were made from')
    parser.add_argument('--out', type=Path, required=True, help='folder for the tracks and scores')
    parser.add_argument('--names', nargs='+', help='what the result files are called; default: run1 run2 ...')
    parser.add_argument('--max-age', type=int, default=3, help='frames that an object may go unfound; default 3')
    parser.add_argument('--score-thr', type=float, default=0.0, help='leave boxes out that score less; default 0')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    from projects.demos.track import track
    names = args.names or [f'run{number + 1}' for number in range(len(args.results))]
    print('\n'.join(track(args.results, names, args.data, args.out, args.max_age, args.score_thr)))


if __name__ == '__main__':
    run_cli(main)
