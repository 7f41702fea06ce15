"""Measures what memory is for, on synthetic scenes in which objects disappear behind others; writes docs/memory.md's tables.

--study readouts compares how memory is read; --study copying is of a memory that copies what it saw, where things stay hidden
longer, and stores its rows in --results.

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

SHOWN = 'gate'
"""The row of the readouts whose scene the report plays."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--study', choices=['readouts', 'copying'], default='readouts')
    parser.add_argument('--data-root', type=Path, help='made first where it is missing; default: data/occlusion, or '
                        'data/occlusion_long for copying')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study_memory'), help='folder of weights and features')
    parser.add_argument('--results', type=Path, default=Path('docs/results/memory'), help='finished rows of copying')
    parser.add_argument('--seeds', type=int, nargs='+', help='default: 0 1, or 0 1 2 for copying, of each '
                        'row as many as it is planned with; with --rows just these')
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--doc', type=Path, default=Path('docs/memory.md'), help='document whose tables are rewritten')
    add_trust_option(parser)
    args = parser.parse_args()

    from projects.demos.played_scene import play_or_say
    from projects.memfusion import register  # noqa: F401
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.reports import report_study, section_of
    from projects.studies.memory import copying, copying_report, report, rows, run

    keep_large_blocks()
    if args.study == 'copying':
        chosen = rows.choose_rows(args.rows, copying.ROWS)
        copying_root, first = args.data_root or Path('data/occlusion_long'), (args.seeds or [0])[0]
        for seed in args.seeds or (0, 1, 2):
            copying.run_seed(copying_root, args.out, args.results, seed, chosen, bool(args.rows and args.seeds))
        copying_report.write_report(args.results, args.doc)
        world = run.load_row(rows.choose_rows([copying_report.CLAIMED], copying.ROWS)[0], copying_root)
        report_study(args.out / 'report_copying.html', 'Memory study: copying', section_of(args.doc, copying_report.MARKERS),
                     args.doc.parent, f'{rows.FOLDER}/{copying_report.CLAIMED}.py',
                     scene=play_or_say(world, args.out / f'copying_seed{first}' / f'{copying_report.CLAIMED}.pth'))
        return
    seeds, data_root = args.seeds or [0, 1], args.data_root or Path('data/occlusion')
    run.make_data(data_root)
    for seed in seeds:
        run.run_seed(data_root, args.out, seed, rows.choose_rows(args.rows, rows.ROWS))
    report.write_report(args.out, seeds, args.doc)
    shown = run.load_row(rows.choose_rows([SHOWN], rows.ROWS)[0], data_root)
    played = play_or_say(shown, args.out / f'seed{seeds[0]}' / f'{SHOWN}.pth')
    report_study(args.out / 'report.html', 'Memory study: readouts', section_of(args.doc, (report.BEGIN, report.END)),
                 args.doc.parent, f'{rows.FOLDER}/{SHOWN}.py', scene=played)


if __name__ == '__main__':
    run_cli(main)
