"""Checks on a GPU what needs no compiled ops: geometry, encodings, fusion, memory. Ends with `gpu_check: ok`, or what fails."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # read when cuBLAS is loaded; deterministic products need it


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda', help='cpu: the same checks without a GPU')
    parser.add_argument('--only', default='', metavar='TEXT', help='only the checks whose names hold this')
    parser.add_argument('--skip-published', action='store_true', help='do not replay published numbers (10 s on a CPU)')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    warnings.filterwarnings('ignore')  # what the libraries have to say about their own future
    import torch

    if args.device == 'cuda' and not torch.cuda.is_available():
        print('gpu_check: FAILED: torch finds no CUDA device (--device cpu makes the same checks without)')
        return 1
    from projects.benchmarks.gpu_check.run import run

    failed = run(args.device, REPO, not args.skip_published, args.only)
    print(f'gpu_check: FAILED: {", ".join(failed)}' if failed else f'gpu_check: ok on {args.device}')
    return int(bool(failed))


if __name__ == '__main__':
    sys.exit(main())
