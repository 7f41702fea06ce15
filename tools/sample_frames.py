#!/usr/bin/env python
"""Chooses K frames of videos, or of nuScenes scenes: indices and reports in one JSON file, and a picture of each choice.

    python tools/sample_frames.py kitchen.mp4 --sampler uniform --frames 16 --out work_dirs/frames.json
    python tools/sample_frames.py scene-0001 --root data/nuscenes --sampler efficient --frames 8 --out work_dirs/scenes.json
    python tools/sample_frames.py videos.txt --geometry poses/ --sampler mergeaware_sa --frames 16 --out work_dirs/pairs.json

The file is written after every video; the same command goes on where it was stopped. A video that cannot be used is named,
counted and left out. docs/frame_sampling.md says what the samplers are and what geometry files hold.

Exit code: 0 where all videos were sampled, 1 where one was not, 2 for bad settings, 3 for a defect of the program.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs where the project is not installed

from projects.common.threads import wait_passively

wait_passively()

from projects.memfusion.runtime.errors import UserError, run_cli
from projects.memfusion.runtime.options import OptionsAction


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('videos', nargs='+', metavar='VIDEO_OR_SCENE',
                        help='video, folder of frames, npz with geometry alone, scene (--root; all: every scene), or list.txt')
    parser.add_argument('--sampler', required=True, help='uniform, sa, fps, efficient, mergeaware_uniform or mergeaware_sa')
    parser.add_argument('--frames', type=int, required=True, metavar='K', help='how many frames')
    parser.add_argument('--out', type=Path, required=True, help='JSON file; one that is there is gone on with')
    parser.add_argument('--fill', action='store_true', help='top up to K where greedy stops early')
    parser.add_argument('--sampler-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', default={},
                        help='other settings of the sampler, e.g. form=round scale_m=10 pair.max_baseline_m=5')
    parser.add_argument('--geometry', type=Path, help='npz of the video, or folder with NAME.npz; default: NAME.npz beside it')
    parser.add_argument('--sees', default='auto', choices=['auto', 'points', 'depth', 'frustum', 'lidar'],
                        help='what stands for what a frame sees; default: the first of these that there is')
    parser.add_argument('--voxel', type=float, metavar='M', help='side of a voxel, metres')
    parser.add_argument('--range', type=float, default=4.0, metavar='M', help='how far a frustum reaches, metres; default 4')
    parser.add_argument('--root', type=Path, help='nuScenes-format data set: names are scenes of it')
    parser.add_argument('--version', default='v1.0-mini', help='folder of its tables; default v1.0-mini')
    parser.add_argument('--no-pictures', action='store_true', help='draw no pictures; else they go into a folder beside --out')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from mmengine.config import Config

    from projects.geometry.frame_sampling import build_sampler
    from projects.sample_frames.batch import sample_all
    from projects.sample_frames.geometry_file import SeeOptions
    from projects.sample_frames.sources import Sources

    cfg = Config(dict(type=args.sampler, num_frames=args.frames, **(dict(fill=True) if args.fill else {})))
    cfg.merge_from_dict(args.sampler_options)
    sampler = build_sampler(cfg.to_dict())
    sources = Sources(SeeOptions(args.sees, args.voxel, args.range), args.geometry, args.root, args.version)
    names = sources.names(args.videos)
    if args.out.is_dir() or args.out.suffix != '.json':
        raise UserError(f'--out {args.out} must be a .json file')
    settings = dict(sampler=cfg.to_dict(), sees=args.sees, voxel_m=args.voxel, range_m=args.range, geometry=str(args.geometry),
                    root=str(args.root), version=args.version)
    pictures = None if args.no_pictures else args.out.with_suffix('')
    results = sample_all(names, sources, sampler, args.out, settings, pictures, lambda line: print(line, flush=True))
    print(f'{len(names) - len(results.failed)} sampled, {len(results.failed)} failed: {args.out}'
          + ('' if pictures is None else f', pictures in {pictures}'))
    if results.failed:
        sys.exit(1)


if __name__ == '__main__':
    run_cli(main, defect_code=3)
