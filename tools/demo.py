#!/usr/bin/env python
"""From nothing to a scored, remembering detector: tiny synthetic data, training, official scores, pictures."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()

from projects.memfusion.runtime import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default=None, help="another tiny config than the demo's, e.g. of configs/temporal")
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='logs, checkpoints, pictures')
    parser.add_argument('--data-root', type=Path, default=Path('data/synthetic_nuscenes'), help='made if missing')
    parser.add_argument('--preset', default='tiny', help='size of the synthetic data set')
    parser.add_argument('--cfg-options', nargs='*', default=[], metavar='KEY=VALUE', help='change the config')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')  # of libraries that we cannot change
    from projects.demos.demo import CONFIG, PHASE1, Demo
    repo = Path(__file__).resolve().parents[1]
    config, phase1 = (CONFIG, PHASE1) if args.config is None else (args.config, None)
    print(Demo(repo, args.work_dir, args.data_root, args.preset, args.cfg_options, config, phase1).run())


if __name__ == '__main__':
    run_cli(main)
