#!/usr/bin/env python
"""Trains a config. Same arguments as mmdet3d's tools/train.py, --seed, --deterministic and --trust-files."""

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
    apply_amp,
    apply_auto_scale_lr,
    apply_seed,
    build_runner,
    naming_options,
    prepare_config,
    prepare_distributed,
    run_cli,
    set_work_dir,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: work_dirs/CONFIG')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from this checkpoint, or from the latest one in the work dir')
    parser.add_argument('--amp', action='store_true', help='mixed precision (CUDA only)')
    parser.add_argument('--sync-bn', '--sync_bn', choices=['none', 'torch', 'mmcv'], default='none',
                        help='share BatchNorm statistics between processes')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--seed', type=int, help='of weights, order and augmentation; default: the config\'s')
    parser.add_argument('--deterministic', action='store_true', help='only deterministic algorithms; slower')
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
                        help='change the config, e.g. train_cfg.max_epochs=2 key="[(1,2),3]" or key="text with spaces"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = prepare_config(args.config, args.cfg_options)
    set_work_dir(cfg, args.config, args.work_dir)
    apply_amp(cfg, args.amp)
    apply_auto_scale_lr(cfg, args.auto_scale_lr)
    apply_seed(cfg, args.seed, args.deterministic)
    if args.sync_bn != 'none':
        cfg.sync_bn = args.sync_bn
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    prepare_distributed(cfg, args.launcher)
    with naming_options(cfg, args.cfg_options):
        build_runner(cfg, args.trust_checkpoint, 'train').train()


if __name__ == '__main__':
    run_cli(main)
