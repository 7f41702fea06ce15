#!/usr/bin/env python
"""Parameters and floating-point operations of one test frame, by slot.

Serves instead of mmdet3d's get_flops.py, which knows no clips. The frame and those before it come from the config's test data,
so that a memory is as full as it is there. A multiplication and an addition count as two (mmdet3d's figure counts them as one).
Voxelisation, scattering, sampling and sparse or deformable convolutions are not counted.
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
    parser.add_argument('--frame', type=int, default=5, help='which test item is counted, from 0; those before it run first')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config')
    add_trust_option(parser)
    args = parser.parse_args(argv)
    if args.frame < 0:
        parser.error(f'--frame must be at least 0, got {args.frame}')
    from projects.benchmarks.flops import count_frame
    print(f'{"slot":<24}{"parameters":>14}{"GFLOPs":>12}')
    for cost in count_frame(prepare_config(args.config, args.cfg_options), args.frame):
        print(f'{cost.slot:<24}{cost.parameters:>14,}{cost.flops / 1e9:>12.3f}')


if __name__ == '__main__':
    run_cli(main)
