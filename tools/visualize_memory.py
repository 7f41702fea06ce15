#!/usr/bin/env python
"""Draws what a memory does over one test scene: the gate of every frame, where a cell looks, how full the memory is.

Writes gate_XX.png and gate.gif, attention_XX.png and, of TemporalMemory, memory_usage.png; pictures of these names in --out
are replaced. Of CopyMemory, attention_XX.png shows the frames that the cell of a hidden object reads.
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
    parser.add_argument('config', help='config file with TemporalMemory or CopyMemory')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    parser.add_argument('--scene', metavar='NAME_OR_TOKEN', help='scene of the test set; default: its first')
    parser.add_argument('--frame', type=int, metavar='I', help='whose attention is drawn, from 0; default: the last, '
                        'with CopyMemory the one in which the object is found that is hidden longest')
    parser.add_argument('--cell', type=float, nargs=2, metavar=('X_M', 'Y_M'),
                        help="a place in that frame's LiDAR coordinates; default: a hidden object that is found "
                        '(CopyMemory), or the strongest predicted box with few points')
    parser.add_argument('--score-thr', type=float, default=0.1, help='draw boxes that score this or more; default 0.1')
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
                        help='change the config, e.g. model.temporal.alpha=0.5 model.test_cfg.mode=window')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = prepare_config(args.config, args.cfg_options)
    from projects.demos.memory_pictures import draw_memory
    cell_m = None if args.cell is None else (args.cell[0], args.cell[1])
    paths = draw_memory(cfg, args.checkpoint, args.out, args.scene, args.frame, cell_m, args.score_thr, args.trust_checkpoint)
    print(f'{len(paths)} pictures in {args.out}')


if __name__ == '__main__':
    run_cli(main)
