#!/usr/bin/env python
"""Writes a copy of a nuScenes-format data set with undistorted images and the K that goes with them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()

from projects.common.safe_pickle import add_trust_option


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path, help='data set with version folders, samples/ and sweeps/; it is only read')
    parser.add_argument('out', type=Path, help='new or empty folder')
    parser.add_argument('--workers', type=int, default=min(4, os.cpu_count() or 1), help='number of processes')
    add_trust_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    print('loading libraries ...', flush=True)
    from projects.convert.undistort import undistort_dataset
    print('\n'.join(undistort_dataset(args.data, args.out, args.workers)))


if __name__ == '__main__':
    from projects.memfusion.runtime.errors import run_cli
    run_cli(main)
