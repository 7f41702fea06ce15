#!/usr/bin/env python
"""Exports a detector as graphs for torch.export and ONNX, with its memory, and checks them on a scene of the test set.

Writes export.json and NAME.onnx, NAME.pt2 into --out; docs/export.md says what they are and how to run them without torch.
Needs requirements/export.txt.
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
from projects.memfusion.runtime import OptionsAction, UserError, prepare_config, run_cli


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the graphs')
    parser.add_argument('--scene', metavar='NAME_OR_TOKEN', help='scene of the test set that is compared; default: its first')
    parser.add_argument('--frames', type=int, metavar='N', help='compare its first N frames; default: all')
    parser.add_argument('--save-frames', action='store_true', help='write the frames too, for projects/export/example.py')
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = prepare_config(args.config, args.cfg_options)
    try:
        from projects.export.program import export
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] not in ('onnx', 'onnxruntime', 'onnxscript'):
            raise
        pip = 'pip install -r requirements/export.txt -c requirements/build.txt'
        raise UserError(f'{error.name} is not installed: {pip}') from error
    made = export(cfg, args.config, args.checkpoint, args.out, args.scene, args.frames, args.save_frames,
                  args.trust_checkpoint)
    check, worst = made['check'], made['check']['largest_difference']
    print(f'{", ".join(graph["onnx"] for graph in made["graphs"])} in {args.out}')
    print(f'as the detector over {check["frames"]} frames of {check["scene"]}: {check["boxes_compared"]} boxes, largest '
          f'difference {worst["boxes"]:.1e} in boxes, {worst["scores"]:.1e} in scores, {worst["state"]:.1e} in memory')


if __name__ == '__main__':
    run_cli(main)
