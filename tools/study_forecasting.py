"""Measures what memory knows of where agents will go, on the synthetic forecast world; writes docs/forecasting.md's tables.

Per seed a light memory is drawn (and trained, with --memory-steps), and its features of every agent are stored; every row then
trains a head on them. With --shared, detectors learn boxes and futures, together and alone. Finished rows are stored in
--results and skipped, so the command may be stopped and given again.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('PYTHONWARNINGS', 'ignore')
os.chdir(Path(__file__).resolve().parents[1])

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import prepare_config, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', type=Path, default=Path('data/synthetic_forecast'), help='the world; made where missing')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study_forecasting'), help='folder of stored features')
    parser.add_argument('--results', type=Path, default=Path('docs/results/forecasting'), help='folder of the finished rows')
    parser.add_argument('--doc', type=Path, default=Path('docs/forecasting.md'), help='document whose section is rewritten')
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--seeds', type=int, nargs='+', help='default: those of each row')
    parser.add_argument('--shared', action='store_true', help='train one detector for boxes and futures, and each alone, '
                        'and nothing else')
    parser.add_argument('--shared-options', nargs='+', default=[], metavar='KEY=VALUE', help='more --cfg-options of the '
                        'training runs of --shared, e.g. train_cfg.max_epochs=1 of the last three')
    parser.add_argument('--memory-steps', type=int, help='optimizer steps of every memory; 0, the default, '
                        'leaves it as it was drawn')
    parser.add_argument('--head-steps', type=int, help='optimizer steps of every head')
    parser.add_argument('--report-only', action='store_true', help='run nothing, write the document')
    parser.add_argument('--no-report', action='store_true', help='leave the document as it is')
    add_trust_option(parser)
    args = parser.parse_args()
    for name in ('memory_steps', 'head_steps'):
        steps = getattr(args, name)
        if steps is not None and steps < 2 and (name, steps) != ('memory_steps', 0):
            parser.error(f'--{name.replace("_", "-")} {steps}: the learning rate rises and falls, which takes 2 steps at least '
                         '(a memory may have 0: it stays as it was drawn)')
    return args


def main() -> None:
    args = parse_args()

    from projects.demos.played_scene import play_or_say
    from projects.memfusion import register  # noqa: F401
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.reports import report_study, section_of
    from projects.studies.forecasting.report import MARKERS, write_report
    from projects.studies.forecasting.rows import HEAD, MEMORY, planned
    from projects.studies.forecasting.run import run_rows
    from projects.studies.forecasting.shared import FOLDER, PERCEPTION, TAIL, TASKS, checkpoint_of, run_shared, write_config
    from projects.studies.forecasting.world import make_world

    plan = planned(args.rows, args.seeds)
    if not args.report_only:
        keep_large_blocks()
        memory, head = (replace(budget, iterations=budget.iterations if given is None else given)
                        for budget, given in ((MEMORY, args.memory_steps), (HEAD, args.head_steps)))
        make_world(args.data_root)
        if args.shared:
            run_shared(args.data_root.resolve(), args.out / 'shared', args.results, args.shared_options)
        else:
            run_rows(args.data_root, args.out, args.results, plan, memory, head)
    if not args.no_report:
        write_report(args.results, args.doc)
        detector = args.out / 'shared' / TASKS[0].name
        config = write_config(PERCEPTION, args.data_root.resolve(), detector / 'played')
        report_study(args.out / 'report.html', 'Forecasting study (scene: the detector of --shared)',
                     section_of(args.doc, MARKERS), args.doc.parent, str(FOLDER / f'{PERCEPTION}_{TAIL}'),
                     scene=play_or_say(prepare_config(config), checkpoint_of(detector)))


if __name__ == '__main__':
    run_cli(main)
