#!/usr/bin/env python
"""Prepares a nuScenes-format data set: mmdet3d v1.1 info files with sequence fields, and the ground-truth database."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()

from projects.common.safe_pickle import add_trust_option


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('dataset', choices=['nuscenes'], help='format of the data set')
    parser.add_argument('--root-path', type=Path, default=Path('data/nuscenes'),
                        help='folder with samples/, sweeps/, maps/ and the version folders')
    parser.add_argument('--version', default='v1.0', help='v1.0-mini, v1.0-trainval, v1.0-test, or v1.0 for '
                        'v1.0-trainval and v1.0-test; with --splits any folder of tables')
    parser.add_argument('--splits', type=Path, help='JSON {"train": [names of scenes], "val": [names]}; default: '
                        "nuScenes' own splits")
    parser.add_argument('--lidar-channel', help='which LiDAR; default: LIDAR_TOP, or the only one')
    parser.add_argument('--load-dim', type=int, default=5, help='values of a point in the point files (default: 5)')
    parser.add_argument('--skip-missing-scenes', action='store_true', help='leave out scenes whose files are not there')
    parser.add_argument('--out-dir', type=Path, help='where to write; default: --root-path')
    parser.add_argument('--extra-tag', default='nuscenes', help='prefix of the files written')
    parser.add_argument('--max-sweeps', type=int, default=10, help='LiDAR sweeps listed before each keyframe')
    parser.add_argument('--workers', type=int, default=min(4, os.cpu_count() or 1), help='number of processes')
    database = parser.add_mutually_exclusive_group()
    database.add_argument('--only-gt-database', action='store_true', help='use the training infos that are there')
    database.add_argument('--skip-gt-database', action='store_true', help='write the info files only')
    add_trust_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    warnings.filterwarnings('ignore', category=FutureWarning, module='spconv')
    warnings.filterwarnings('ignore', message='img_intersection is not an object of Polygon')
    print('loading libraries ...', flush=True)
    from projects.memfusion.data.prepare import prepare_nuscenes
    prepare_nuscenes(args.root_path, args.version, args.out_dir or args.root_path, args.extra_tag, args.max_sweeps,
                     args.workers, with_infos=not args.only_gt_database, with_gt_database=not args.skip_gt_database,
                     lidar_channel=args.lidar_channel, splits_file=args.splits,
                     skip_missing_scenes=args.skip_missing_scenes, load_dim=args.load_dim)


if __name__ == '__main__':
    from projects.memfusion.runtime.errors import run_cli
    run_cli(main)
