"""Command line of the generator: arguments in, a data set on disk and an exit code out (no frame)."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool

from projects.synthetic_nuscenes.generate import generate_dataset
from projects.synthetic_nuscenes.output_folder import OutputFolderError
from projects.synthetic_nuscenes.settings import (
    DISTORTION_COEFFICIENTS,
    FORECAST_KINDS,
    PRESETS,
    RIG_NAMES,
    SCENE_KINDS,
    make_settings,
)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of `tools/create_synthetic_nuscenes.py`."""
    parser = argparse.ArgumentParser(description='Make a procedural data set in the nuScenes v1.0-mini format.')
    parser.add_argument('--preset', default='tiny', help=f'one of {", ".join(PRESETS)} (default: tiny)')
    parser.add_argument('--out', required=True, help='output folder: new, empty, or an interrupted run to finish')
    parser.add_argument('--seed', type=int, default=0, help='world seed (default: 0)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count() or 1, help='processes (default: all cores); same bytes with any'
    )
    parser.add_argument('--camera-sweeps', action='store_true', help='also write the 12 Hz camera frames in between')
    parser.add_argument(
        '--distortion', default='none', help=f'lens model: one of {", ".join(DISTORTION_COEFFICIENTS)} (default: none)'
    )
    parser.add_argument('--sweep-motion', action='store_true', help='ego and world move during each LiDAR turn')
    parser.add_argument('--camera-labels', action='store_true', help='also write pixel classes and 2-D boxes of the keyframes')
    parser.add_argument('--rig', help=f'the cameras: one of {", ".join(RIG_NAMES)} (default: those of the preset)')
    parser.add_argument(
        '--scenes', nargs='+', metavar='NAME',
        help=f'some of {", ".join(SCENE_KINDS)}; of a forecast preset: some of {", ".join(FORECAST_KINDS)} (default: those of '
             'the preset)')
    parser.add_argument('--force', action='store_true', help='replace a synthetic data set with other settings')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the generator.

    Returns:
        0 when the data set is whole, 1 where the folder cannot be used, 2 for bad values, 130 when interrupted.
    """
    args = build_parser().parse_args(argv)
    started = time.monotonic()
    try:
        settings = make_settings(
            args.preset,
            args.seed,
            camera_sweeps=args.camera_sweeps,
            distortion=args.distortion,
            sweep_motion=args.sweep_motion,
            camera_labels=args.camera_labels,
            **({} if args.rig is None else {'rig': args.rig}),
            **({} if args.scenes is None else {'scene_names': tuple(args.scenes)}),
        )
        worked = generate_dataset(args.out, settings, workers=args.workers, force=args.force)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except (OutputFolderError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(f'error: a worker died (out of memory?); run the same command again, perhaps with fewer --workers, '
              f'to finish {args.out}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'interrupted: run the same command again to finish {args.out}', file=sys.stderr)
        return 130
    if not worked:
        print(f'{args.out} already holds this whole data set (preset {args.preset}, seed {args.seed}); nothing to do')
    else:
        print(f'{args.out}: preset {args.preset}, seed {args.seed}, made in {time.monotonic() - started:.0f} s')
    return 0
