"""Compares the fusions: cost at full size, accuracy on synthetic worlds with one budget, and how wrong the rig may be.

Per seed one LiDAR-only detector is trained and its BEV features are stored, as tools/study_fusion.py does; every row then
trains image branch, fusion or query decoder, and head on them. What is finished lies under --results and is skipped, so the
command may be stopped and given again. The section of docs/fusion.md between its markers is rewritten.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('PYTHONWARNINGS', 'ignore')
os.chdir(Path(__file__).resolve().parents[1])

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder of weights, features and submissions')
    parser.add_argument('--results', type=Path, default=Path('docs/results/fusion'), help='folder of the finished rows')
    parser.add_argument('--data-root', type=Path, default=Path('data/fusion_study'), help='of the worlds; made where missing')
    parser.add_argument('--doc', type=Path, default=Path('docs/fusion.md'), help='document whose section is rewritten')
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--seeds', type=int, nargs='*', default=[0, 1], help='none: only the worlds are made')
    parser.add_argument('--budget', type=int, help='optimizer steps of every row')
    parser.add_argument('--frames', type=int, default=4, help='of a step')
    parser.add_argument('--image-steps', type=int, default=200, help='on 2-D boxes, for the image branch that rows start from')
    parser.add_argument('--no-cost', action='store_true', help='count no costs')
    parser.add_argument('--only-cost', action='store_true', help='count the costs and train nothing')
    parser.add_argument('--overfit', nargs='*', metavar='DESIGN', help='query detectors that learn eight frames by heart, all '
                        'where none is named; nothing else is done')
    parser.add_argument('--minutes', type=float, default=15.0, help='of each of these')
    parser.add_argument('--history', type=Path, metavar='DIR', help="test StreamPETR's memory on the world of long occlusions "
                        'in DIR, made where it is missing; nothing else is done')
    parser.add_argument('--no-report', action='store_true', help='leave the document as it is')
    add_trust_option(parser)
    args = parser.parse_args()
    if args.only_cost and args.no_cost:
        parser.error('--only-cost and --no-cost leave nothing to do')
    if args.budget is not None and args.budget < 2:
        parser.error(f'--budget {args.budget}: the learning rate rises and falls, which takes 2 steps at least')
    return args


def main() -> None:
    args = parse_args()

    from projects.benchmarks.frame_cost import measure_frame
    from projects.demos.played_scene import play_or_say
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.reports import report_study, section_of
    from projects.studies.compare.costs import count_costs
    from projects.studies.compare.history import CLIPS, history_section, run_history
    from projects.studies.compare.overfit import overfit_section
    from projects.studies.compare.overfit_noise import noise_section
    from projects.studies.compare.report import MARKERS, write_report
    from projects.studies.compare.rows import BUDGET, ROWS, choose_rows
    from projects.studies.compare.run import run_rows
    from projects.studies.fusion.rows import FUSED
    from projects.studies.fusion.run import load_row, make_worlds

    rows = choose_rows(args.rows)
    apart = args.overfit is not None or args.history is not None
    if not args.no_cost and not apart:
        count_costs(args.results, rows, lambda config: asdict(measure_frame(config, repeats=3, reference=ROWS[0].full)))
    keep_large_blocks()  # only now: memory that is kept does not show in a peak
    if args.overfit is not None:
        run_overfit(args)
    if args.history is not None:
        for seed in args.seeds:
            run_history(args.history, args.out / 'history', args.results, seed,
                        replace(CLIPS, iterations=args.budget or CLIPS.iterations))
    if not args.only_cost and not apart:
        budget = replace(BUDGET, iterations=args.budget or BUDGET.iterations, clips=args.frames)
        run_rows(make_worlds(args.data_root), args.out, args.results, args.seeds, rows, budget, args.image_steps)
    if not args.no_report:
        extra = [*overfit_section(args.results), *noise_section(args.results), *history_section(args.results)]
        write_report(args.results, ROWS, args.seeds, args.doc, extra)
        weights = args.out / f'seed{(args.seeds or [0])[0]}' / f'{FUSED}.pth'
        played = play_or_say(load_row(f'configs/study/{FUSED}.py', args.data_root / 'world0'), weights)
        report_study(args.out / 'report.html', 'Fusions compared', section_of(args.doc, MARKERS), args.doc.parent,
                     f'configs/study/{FUSED}.py', scene=played)


def run_overfit(args: argparse.Namespace) -> None:
    """Every design that was asked for, camera-only and fused: what it learns, and then how it takes wrong rigs."""
    from projects.memfusion.runtime.errors import UserError
    from projects.studies.compare.overfit import DESIGNS, SENSORS, overfit, overfit_path
    from projects.studies.compare.overfit_noise import measure_noise, noise_path
    from projects.studies.fusion.run import make_worlds

    unknown = sorted(set(args.overfit) - set(DESIGNS))
    if unknown:
        raise UserError(f'--overfit: there are no designs {unknown}; there are {list(DESIGNS)}')
    root = make_worlds(args.data_root)[0]
    for design in args.overfit or DESIGNS:
        for sensors in SENSORS:
            weights = args.out / 'overfit' / f'{design}-{sensors}.pth'
            overfit(design, sensors, root, args.minutes, overfit_path(args.results, design, sensors), weights)
            measure_noise(design, sensors, root, weights, noise_path(args.results, design, sensors))


if __name__ == '__main__':
    run_cli(main)
