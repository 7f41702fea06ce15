#!/usr/bin/env python
"""Is the calibration of a data set right? Prints a line per camera, then `calibration_doctor: ok` or `faulty CAMERA ...`.

DATA is a data set root, an info file or a folder with one keyframe. Exit code 0: no fault; 1: a camera is faulty; 2: bad
input; 3: the tool itself failed.
"""

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, help='data set root, info file (.pkl) or folder with one keyframe')
    parser.add_argument('--out', type=Path, help='folder for an overlay picture of each camera; default: no pictures')
    parser.add_argument('--frames', type=int, default=20, help='keyframes whose images are looked at, at most (default: 20)')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if args.frames < 1:
        parser.error(f'--frames must be at least 1, got {args.frames}')
    return args


def main(args: argparse.Namespace) -> None:
    from projects.calibration_doctor import examine, read_data

    data = read_data(args.data, args.frames)
    print(f'{data.source}: {len(data.infos)} frames in the infos, images of {len(data.frames)} are looked at', flush=True)
    verdicts = examine(data)
    for verdict in verdicts.values():
        print(verdict.line())
    if args.out is not None:
        from projects.calibration_doctor.pictures import write_pictures
        for path in write_pictures(data.frames, verdicts, args.out):
            print(f'picture: {path}')
    faulty = [verdict.name for verdict in verdicts.values() if verdict.is_faulty]
    print(f'calibration_doctor: {"faulty " + " ".join(faulty) if faulty else "ok"}', flush=True)
    if faulty:
        sys.exit(1)


if __name__ == '__main__':
    arguments = parse_args()
    warnings.filterwarnings('ignore')  # of libraries that we cannot change
    try:
        from projects.memfusion.runtime.errors import run_cli
    except Exception:  # a library that cannot be imported: Python's own exit code would be a verdict
        traceback.print_exc()
        sys.exit(3)
    run_cli(lambda: main(arguments), defect_code=3)
