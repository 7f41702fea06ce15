#!/usr/bin/env python
"""Runs the pipeline on one real nuScenes keyframe: draws it, overfits a detector on it, checks our conventions."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()

from projects.common.safe_pickle import add_trust_option


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('keyframe_dir', type=Path, help='folder with one mmdet3d v1.1 info .pkl, images and .pcd.bin')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/keyframe'), help='folder for the pictures')
    parser.add_argument('--steps', type=int, help="training steps; default: the config's")
    parser.add_argument('--seed', type=int, default=0, help='of the initial weights')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 2:
        parser.error(f'--steps must be at least 2, got {args.steps}')
    return args


def main(args: argparse.Namespace) -> None:
    """Exit code 0: all figures hit the mark; 1: one missed it; 2: bad input (run_cli); 3: the tool itself failed."""
    from projects.demos.keyframe.run import run_keyframe

    score = run_keyframe(args.keyframe_dir, args.out, args.steps, args.seed)
    failures = score.failures()
    print(f'pictures in {args.out}')
    for failure in failures:
        print(f'missed: {failure}')
    print(score.line(), flush=True)
    if failures:
        sys.exit(1)


if __name__ == '__main__':
    arguments = parse_args()
    print('loading libraries ...', flush=True)
    warnings.filterwarnings('ignore')  # of libraries that we cannot change
    try:
        from projects.memfusion.runtime.errors import run_cli
    except Exception:  # a library that cannot be imported: Python's own exit code would be a verdict
        traceback.print_exc()
        sys.exit(3)
    run_cli(lambda: main(arguments), defect_code=3)
