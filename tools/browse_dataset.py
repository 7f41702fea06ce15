#!/usr/bin/env python
"""Draws what a config's pipeline feeds the detector, before and after augmentation: points, boxes, cameras, whole clips.

Serves instead of mmdet3d's browse_dataset.py, which knows no clips.
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
from projects.memfusion.runtime import OptionsAction, prepare_config, run_cli


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train', help='whose pipeline; default: train')
    parser.add_argument('--number', type=int, default=10, help='items that are drawn, from the first; default: 10')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if args.number < 1:
        parser.error(f'--number must be at least 1, got {args.number}')
    from projects.demos.browse import browse
    for path in browse(prepare_config(args.config, args.cfg_options), args.split, args.out, args.number):
        print(path)


if __name__ == '__main__':
    run_cli(main)
