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
    parser.add_argument('--image-steps', type=int, default=200, help='on 2-D boxes, for the image branch that rows start from')
    parser.add_argument('--no-cost', action='store_true', help='count no costs')
    parser.add_argument('--only-cost', action='store_true', help='count the costs and train nothing')
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
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.studies.compare.costs import count_costs
    from projects.studies.compare.report import write_report
    from projects.studies.compare.rows import BUDGET, ROWS, choose_rows
    from projects.studies.compare.run import run_rows
    from projects.studies.fusion.run import make_worlds

    rows = choose_rows(args.rows)
    if not args.no_cost:
        count_costs(args.results, rows, lambda config: asdict(measure_frame(config)))
    keep_large_blocks()  # only now: memory that is kept does not show in a peak
    if not args.only_cost:
        budget = BUDGET if args.budget is None else replace(BUDGET, iterations=args.budget)
        run_rows(make_worlds(args.data_root), args.out, args.results, args.seeds, rows, budget, args.image_steps)
    if not args.no_report:
        write_report(args.results, ROWS, args.seeds, args.doc)


if __name__ == '__main__':
    run_cli(main)
