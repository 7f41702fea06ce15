"""Measures what cameras are for, on synthetic scenes with classes that differ in paint only; writes docs/fusion.md's tables.

Per seed: one LiDAR-only detector is trained on all worlds and its BEV features are stored; every row then trains image branch,
fusion layer and head on them. FuTr++ is then tested with wrong calibrations and with false images. What is finished is stored
under --out and skipped, so the command may be stopped and given again. Seeds may run side by side with --no-report, once the
worlds are there.
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
    parser.add_argument('--data-root', type=Path, default=Path('data/fusion_study'), help='of the worlds; made where missing')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study_fusion'), help='folder of stored rows')
    parser.add_argument('--seeds', type=int, nargs='*', default=[0, 1], help='none: only the worlds are made')
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--doc', type=Path, default=Path('docs/fusion.md'), help='document whose tables are rewritten')
    parser.add_argument('--no-report', action='store_true', help='leave the document as it is')
    add_trust_option(parser)
    args = parser.parse_args()

    from projects.demos.played_scene import play_or_say
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.reports import report_study, section_of
    from projects.studies.fusion.faults import run_faults
    from projects.studies.fusion.report import write_report
    from projects.studies.fusion.rows import FUSED, choose_rows
    from projects.studies.fusion.run import load_row, make_worlds, run_seed
    from projects.studies.memory.report import BEGIN, END

    keep_large_blocks()
    rows = choose_rows(args.rows)
    roots = make_worlds(args.data_root)
    for seed in args.seeds:
        run_seed(roots, args.out, seed, rows)
        run_faults(roots, args.out / f'seed{seed}')
    if args.seeds and not args.no_report:
        write_report(args.out, args.seeds, roots, args.doc)
        weights = args.out / f'seed{args.seeds[0]}' / f'{FUSED}.pth'
        played = play_or_say(load_row(f'configs/study/{FUSED}.py', roots[0]), weights)
        report_study(args.out / 'report.html', 'Fusion study', section_of(args.doc, (BEGIN, END)), args.doc.parent,
                     f'configs/study/{FUSED}.py', scene=played)


if __name__ == '__main__':
    run_cli(main)
