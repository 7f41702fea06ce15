#!/usr/bin/env python
"""Writes one scene as a Rerun recording: points, sweeps, cameras, truth, predictions, trajectories; of a detector also its
gate, its memory and where its queries look. All of it along `frame` and along `time`.

DATA is a data set root, an info file or a folder with one keyframe; RESULTS is a submission of tools/test.py, or its folder.
RESULTS alone are enough where the config of their run lies beside them. With --config and --checkpoint the scene runs through
the detector; without DATA it is one of its config's test data.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
warnings.filterwarnings('ignore')  # of libraries that we cannot change

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import OptionsAction, prepare_config, run_cli


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', type=Path, nargs='*', metavar='DATA|RESULTS', help='one of each at most, in any order')
    parser.add_argument('--scene', metavar='NAME_OR_TOKEN', help='default: the first; of results the first that they have')
    parser.add_argument('--config', help="a detector's config")
    parser.add_argument('--checkpoint', help='its checkpoint file')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.rrd', help='where the recording goes')
    parser.add_argument('--sweeps', type=int, default=4, metavar='N', help='earlier LiDAR readings of each frame; default 4')
    parser.add_argument('--score-thr', type=float, default=0.1, help='show boxes that score this or more; default 0.1')
    parser.add_argument('--spawn', action='store_true', help="open it in Rerun's viewer")
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config')
    args = parser.parse_intermixed_args(argv)
    if args.out.suffix != '.rrd':
        parser.error(f'--out {args.out}: the file must end in .rrd')
    if args.cfg_options and not args.config:
        parser.error('--cfg-options changes a config: give --config too')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from projects.demos.viewer.view import ViewOptions, sort_sources, view_scene
    cfg = prepare_config(args.config, args.cfg_options) if args.config else None
    options = ViewOptions(args.sweeps, args.score_thr, args.trust_checkpoint)
    summary = view_scene(sort_sources(args.paths, cfg, args.checkpoint), args.out, args.scene, options)
    for sentence in summary.missing[:3]:
        print(f'left out: {sentence}')
    if len(summary.missing) > 3:
        print(f'left out: {len(summary.missing) - 3} more images that are not there')
    if summary.without_results:
        print(f'{summary.without_results} of the {summary.frames} frames are not in the results: are they of this data?')
    print(f'{args.out}: scene {summary.scene}, {summary.frames} frames, {summary.boxes} predicted boxes')
    if args.spawn:
        subprocess.Popen([sys.executable, '-m', 'rerun', str(args.out)])


if __name__ == '__main__':
    run_cli(main)
