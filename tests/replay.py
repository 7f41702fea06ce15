#!/usr/bin/env python
"""Replays published numbers. In: files of tests/reference or of the same families. Out: one line per file, an exit code.

    python tests/replay.py tests/reference/xmem_working_memory.npz
    replay xmem_working_memory: worst=0.0119 ok

The start of a file's name says which part it was made with; that part is rebuilt with the file's sizes and settings, fed
with its inputs, and its outputs are compared. `worst` is the largest difference divided by the tolerance of its array: up
to 1 is ok. Arrays that must be equal count 0 or inf. tests/reference/README.md tells families, arrays and tolerances.

Exit code: 0 where all files agree, 1 where one does not, 2 for a name or a file that cannot be replayed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS)]
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')  # read when torch is loaded

FAMILIES = {
    'cape': 'cape',
    'cmt_camera_vov_state_dict': 'official_names',
    'cmt_fusion_r50_state_dict': 'official_names',
    'cmt': 'cmt',
    'frame_sampling': 'frame_sampling',
    'bevformer': 'bevformer',
    'gta': 'gta',
    'nuscenes_prediction': 'prediction',
    'openpcdet_multihead': 'openpcdet_multihead',
    'petrv2': 'petrv2',
    'petrv2_state_dict': 'official_names',
    'prope': 'prope',
    'qwen_mrope': 'qwen_mrope',
    'qwen_patches': 'qwen_patches',
    'rope_index': 'rope_index',
    'spatial_connector': 'spatial_connector',
    'sparsebev_state_dict': 'official_names',
    'sqa3d_scoring': 'sqa3d_scoring',
    'streampetr': 'streampetr',
    'streampetr_state_dict': 'official_names',
    'sparsebev': 'sparsebev',
    'vsibench_scoring': 'vsibench_scoring',
    'xmem': 'xmem',
    'xmem_state_dict': 'xmem',
    'xmem_working_memory': 'xmem',
}
"""Start of a file's name -> module in tests/replays; the longest start wins."""


def family_of(path: Path) -> str | None:
    starts = [start for start in FAMILIES if path.name.startswith(start)]
    return FAMILIES[max(starts, key=len)] if starts else None


def replay(path: Path, device: str = 'cpu') -> int:
    """Prints what became of one file, replayed on `device` -> 0 it agrees, 1 it does not, 2 it cannot be replayed."""
    family = family_of(path)
    if family is None:
        print(f'error: {path}: nothing replays a file of this name. Known starts of names: {", ".join(sorted(FAMILIES))}',
              file=sys.stderr)
        return 2
    if not path.is_file():
        print(f'error: {path}: no such file', file=sys.stderr)
        return 2
    try:
        differences = importlib.import_module(f'replays.{family}').replay(path, device)
    except Exception as error:  # a file of another layout may fail anywhere; the other files are still replayed
        print(f'error: {path} cannot be replayed: {type(error).__name__}: {error}', file=sys.stderr)
        return 2
    name, worst = max(differences, key=lambda item: item[1])
    verdict = 'ok' if worst <= 1 else f'FAILED ({name})'
    print(f'replay {path.stem}: worst={worst:.3g} {verdict}', flush=True)
    return int(worst > 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', nargs='+', type=Path, metavar='FILE', help='file of published numbers')
    parser.add_argument('--device', default='cpu', help='where the parts run, e.g. cuda')
    args = parser.parse_args(argv)
    return max(replay(path, args.device) for path in args.files)


if __name__ == '__main__':
    warnings.filterwarnings('ignore')  # what the libraries have to say about their own future
    sys.exit(main())
