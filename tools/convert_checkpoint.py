#!/usr/bin/env python
"""Converts a checkpoint of another code base into one of ours; every entry is accounted for."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
warnings.filterwarnings('ignore', category=FutureWarning, module='spconv')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('kind', help='what the checkpoint is of: petrv2, streampetr, sparsebev, cmt or openpcdet_multihead')
    parser.add_argument('source', metavar='IN', help='the checkpoint; it is only read')
    parser.add_argument('target', metavar='OUT', help='the file to write')
    parser.add_argument('--config', help="the detector that it must fit; default: the published one's")
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read IN without protection: it may run any program')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    print('loading libraries ...', flush=True)
    from projects.convert import convert_checkpoint
    print('\n'.join(convert_checkpoint(args.kind, args.source, args.target, args.config, args.trust_checkpoint,
                                       args.overwrite)))


if __name__ == '__main__':
    from projects.memfusion.runtime.errors import run_cli
    run_cli(main)
