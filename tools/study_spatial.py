"""Measures what camera poses tell a small video language model about made rooms; writes the table of docs/spatial_mllm.md.

Rooms are made, a vision tower learns which colours are where and is frozen, its tokens of all frames are kept; every row and
seed then trains a language model on them. Rows that are finished are asked about other rooms. What is finished is stored under
--results and skipped, so the command may be stopped and given again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work', type=Path, default=Path('work_dirs/study_spatial'),
                        help='folder of rooms, tower, tokens and weights')
    parser.add_argument('--results', type=Path, default=Path('docs/results/spatial'), help='finished rows')
    parser.add_argument('--doc', type=Path, default=Path('docs/spatial_mllm.md'), help='document whose table is rewritten')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='the first runs all rows')
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--rooms', type=int, nargs=3, default=[2000, 200, 300], metavar=('TRAIN', 'VAL', 'TEST'))
    parser.add_argument('--steps', type=int, nargs=3, default=[500, 2600, 400], help='of the three stages')
    parser.add_argument('--tower-steps', type=int, default=1000, help='of the vision tower, 32 frames each')
    parser.add_argument('--probe-rooms', type=int, default=200, help='of each probe, and of the long videos')
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1, help='processes that make rooms')
    args = parser.parse_args(argv)

    from projects.reports import report_study, section_of
    from projects.spatial_mllm.study.learning import Schedule
    from projects.spatial_mllm.study.prepare import StudySettings
    from projects.spatial_mllm.study.report import MARKERS, write_report
    from projects.spatial_mllm.study.rows import TWO_SEEDS, choose_rows
    from projects.spatial_mllm.study.run import Study

    settings = StudySettings(tuple(args.rooms), tower_steps=args.tower_steps, schedule=Schedule(tuple(args.steps)),
                             probe_rooms=args.probe_rooms)
    try:
        study = Study(args.work, args.results, settings, args.workers, lambda line: print(line, flush=True))
        chosen = {seed: [row for row in choose_rows(args.rows) if args.rows or seed == args.seeds[0] or row.name in TWO_SEEDS]
                  for seed in args.seeds}
        for run in (study.run_rows, study.probe_rows):
            for seed, rows in chosen.items():
                run(rows, seed)
        write_report(args.results, args.doc)
        report_study(args.work / 'report.html', 'Spatial study', section_of(args.doc, MARKERS), args.doc.parent,
                     scene=(None, 'No scene: rooms are asked about in words, there are no boxes to play.'))
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
