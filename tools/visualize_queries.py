#!/usr/bin/env python
"""Draws what the queries of a detector do in one test frame: where they end, what the best ones sample, where one attends.

Writes queries.png, query_cameras.png (with cameras) and query_attention.png (of heads that attend to tokens); pictures of these
names in --out are replaced.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()
warnings.filterwarnings('ignore')  # of libraries that we cannot change

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import OptionsAction, prepare_config, run_cli


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of configs/query')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    parser.add_argument('--scene', metavar='NAME_OR_TOKEN', help='scene of the test set; default: its first')
    parser.add_argument('--frame', type=int, default=0, metavar='I', help='of the scene, from 0; default 0')
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument('--query', type=int, metavar='I', help='whose attention is drawn; default: the best')
    chosen.add_argument('--at', type=float, nargs=2, metavar=('X_M', 'Y_M'),
                        help="or the best query near a place in the frame's LiDAR coordinates")
    parser.add_argument('--layer', type=int, default=-1, metavar='I',
                        help='of the decoder, from 0, whose points and attention are drawn; default: the last')
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = prepare_config(args.config, args.cfg_options)
    from projects.demos.query_pictures import draw_query_pictures
    at_m = None if args.at is None else (args.at[0], args.at[1])
    paths = draw_query_pictures(cfg, args.checkpoint, args.out, args.scene, args.frame, args.query, at_m, args.layer,
                                args.trust_checkpoint)
    print(f'{len(paths)} pictures in {args.out}')


if __name__ == '__main__':
    run_cli(main)
