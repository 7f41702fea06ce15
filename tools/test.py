#!/usr/bin/env python
"""Scores a checkpoint. Same arguments as mmdet3d's tools/test.py, --trust-files and --fuse.

The submission file is kept with `--cfg-options test_evaluator.jsonfile_prefix=DIR`; with
`test_evaluator.format_only=True` it is written and checked but not scored.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()
warnings.filterwarnings('ignore', category=FutureWarning, module='spconv')

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import (
    OptionsAction,
    apply_checkpoint,
    apply_fuse,
    apply_tta,
    apply_visualization,
    build_runner,
    naming_options,
    prepare_config,
    prepare_distributed,
    run_cli,
    set_work_dir,
)

TASKS = ['mono_det', 'multi-view_det', 'lidar_det', 'lidar_seg', 'multi-modality_det']


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file; a folder for language models')
    parser.add_argument('--work-dir', help='folder for logs and scores; default: work_dirs/CONFIG')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='draw predictions into this folder')
    parser.add_argument('--score-thr', type=float, default=0.1, help='draw boxes that score this or more; default 0.1')
    parser.add_argument('--task', choices=TASKS, help="what mmdet3d's Det3DVisualizationHook draws")
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows a frame')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation: tta_model and tta_pipeline')
    parser.add_argument('--fuse', action='store_true', help='fold BatchNorm and leave out padding: the same boxes in less time')
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
                        help='change the config, e.g. test_dataloader.batch_size=2 key="[(1,2),3]" or key="text with spaces"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = prepare_config(args.config, args.cfg_options)
    set_work_dir(cfg, args.config, args.work_dir)
    apply_checkpoint(cfg, args.checkpoint)
    if args.show or args.show_dir:
        apply_visualization(cfg, args.show, args.show_dir, args.score_thr, args.task, args.wait_time)
    if args.tta:
        apply_tta(cfg)
    if args.fuse:
        apply_fuse(cfg)
    prepare_distributed(cfg, args.launcher)
    with naming_options(cfg, args.cfg_options):
        build_runner(cfg, args.trust_checkpoint, 'test').test()


if __name__ == '__main__':
    run_cli(main)
