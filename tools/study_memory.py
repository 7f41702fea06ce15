"""Measures what memory is for, on synthetic scenes in which objects disappear behind others; writes docs/memory.md's tables.

Per seed: one plain detector is trained and its BEV features are cached; every row then trains temporal module and head on
the cache. Finished rows are stored under --out and skipped, so the command may be stopped and given again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('PYTHONWARNINGS', 'ignore')
os.chdir(Path(__file__).resolve().parents[1])

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import run_cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=Path('data/occlusion'), help='made first where it is missing')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study_memory'), help='folder of stored rows')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--doc', type=Path, default=Path('docs/memory.md'), help='document whose tables are rewritten')
    add_trust_option(parser)
    args = parser.parse_args()

    from projects.memfusion import register  # noqa: F401
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.studies.memory.report import write_report
    from projects.studies.memory.rows import choose_rows
    from projects.studies.memory.run import make_data, run_seed

    keep_large_blocks()
    rows = choose_rows(args.rows)
    make_data(args.data_root)
    for seed in args.seeds:
        run_seed(args.data_root, args.out, seed, rows)
    write_report(args.out, args.seeds, args.doc)


if __name__ == '__main__':
    run_cli(main)
