"""Spatial: made rooms. In: arguments. Out: a set of rooms on disk, and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from projects.spatial_mllm.rooms.generate import generate
from projects.spatial_mllm.rooms.output_folder import OutputFolderError
from projects.spatial_mllm.rooms.picture import draw_sheet
from projects.spatial_mllm.rooms.settings import PATHS, PRESETS, SPLITS, RoomSettings, make_settings

_CHANGES = ('rooms', 'num_frames', 'image_size', 'view_deg', 'path', 'areas_m2', 'rounds')


def main(argv: list[str] | None = None) -> int:
    """Makes the rooms.

    Returns:
        0 when they are whole, 1 where the folder cannot be used, 2 for bad values, 130 when interrupted.
    """
    args = _parser().parse_args(argv)
    changes = {name: getattr(args, name) for name in _CHANGES}
    started = time.monotonic()
    try:
        settings = make_settings(args.preset, args.seed, **{name: tuple(value) if isinstance(value, list) else value
                                                            for name, value in changes.items() if value is not None})
        worked = generate(args.out, settings, args.workers, args.force, _show)
        _draw(args.out, settings, args.sheets)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except (OutputFolderError, OSError, RuntimeError) as error:
        died = 'a process died (out of memory?): ' if isinstance(error, BrokenProcessPool) else ''
        print(f'error: {died}{error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f'\ninterrupted: run the same command again to finish {args.out}', file=sys.stderr)
        return 130
    told = f'made in {time.monotonic() - started:.0f} s' if worked else 'was there already'
    print(f'{args.out}: {sum(settings.rooms)} rooms ({", ".join(SPLITS)}: {settings.rooms}), seed {args.seed}, {told}')
    return 0


def _show(done: int, total: int) -> None:
    if done == total or done % max(1, total // 20) == 0:
        print(f'rooms {done}/{total}', flush=True)


def _draw(root: Path, settings: RoomSettings, count: int) -> None:
    for index in range(min(count, settings.rooms[0])):
        print(draw_sheet(settings, SPLITS[0], index, root / 'sheets'))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Make furnished rooms, videos with exact depth and poses, and questions '
                                                 'in the formats of VSI-Bench and SQA3D whose answers follow from geometry.')
    presets = ', '.join(f'{name} {"+".join(map(str, rooms))}' for name, rooms in PRESETS.items())
    parser.add_argument('--preset', default='nano', help=f'rooms for train, val and test: {presets} (default: nano)')
    parser.add_argument('--out', type=Path, required=True, help='folder: new, empty, or of a run that was cut off')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes; same rooms with any number')
    parser.add_argument('--force', action='store_true', help='replace rooms with other settings')
    parser.add_argument('--rooms', type=int, nargs=3, metavar=('TRAIN', 'VAL', 'TEST'), help="instead of the preset's")
    parser.add_argument('--num-frames', type=int, help='of a video (default: 8)')
    parser.add_argument('--image-size', type=int, help='pixels of a side (default: 84)')
    parser.add_argument('--view-deg', type=float, help='angle of view, at most 60 (default: 50)')
    parser.add_argument('--path', help=f'of the camera: {", ".join(PATHS)} (default: independent); walk tells directions')
    parser.add_argument('--areas-m2', type=float, nargs='+', help='floors, equally often (default: 16 20 25 30)')
    parser.add_argument('--rounds', type=int, help='how often each type of question is asked of a room, at most (default: 2)')
    parser.add_argument('--sheets', type=int, default=0, metavar='N', help='draw the first N training rooms')
    return parser
