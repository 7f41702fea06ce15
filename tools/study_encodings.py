"""Measures which pose encoding carries over to another car: FuTr++ with tokens and PETRv2 as a query decoder, synthetic worlds.

Per seed one LiDAR-only detector and one image branch are trained and all their features are stored, as
tools/compare_fusions.py does (its --out is used where it is given); every row then trains fusion or decoder, and head, with
poses told in another way, and is tested on its own rig, with wrong calibrations, on a rig that it has never seen, and with
another frame's images. With --memory XMem is trained with and without ego poses in its read, on streets in which the ego
turns. Finished rows lie under --results and are skipped, so the command may be stopped and given again. The section of
docs/encodings.md between its markers is rewritten.
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
from projects.memfusion.runtime import run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/study_encodings'), help='folder of weights and features')
    parser.add_argument('--results', type=Path, default=Path('docs/results/encodings'), help='folder of the finished rows')
    parser.add_argument('--data-root', type=Path, default=Path('data/fusion_study'), help='of the worlds; made where missing')
    parser.add_argument('--rig-root', type=Path, help='of the same worlds from another rig; default: --data-root')
    parser.add_argument('--doc', type=Path, default=Path('docs/encodings.md'), help='document whose section is rewritten')
    parser.add_argument('--rows', nargs='+', help='names of rows; default: all')
    parser.add_argument('--seeds', type=int, nargs='+', help='default: those of each row')
    parser.add_argument('--budget', type=int, help='optimizer steps of every row')
    parser.add_argument('--image-steps', type=int, default=200, help='on 2-D boxes, for the image branch')
    parser.add_argument('--memory', type=Path, metavar='DIR', help='test XMem on the streets with turns in DIR, made where '
                        'they are missing; nothing else is done')
    parser.add_argument('--report-only', action='store_true', help='run nothing, write the document')
    parser.add_argument('--no-report', action='store_true', help='leave the document as it is')
    add_trust_option(parser)
    args = parser.parse_args()
    if args.budget is not None and args.budget < 2:
        parser.error(f'--budget {args.budget}: the learning rate rises and falls, which takes 2 steps at least')
    return args


def main() -> None:
    args = parse_args()

    from projects.demos.played_scene import play_or_say
    from projects.memfusion.runtime.allocator import keep_large_blocks
    from projects.reports import report_study, section_of
    from projects.studies.encodings.memory import make_turns, run_memory
    from projects.studies.encodings.report import MARKERS, write_report
    from projects.studies.encodings.rows import BUDGET, planned
    from projects.studies.encodings.run import make_rigs, run_rows
    from projects.studies.fusion.rows import PRETRAIN
    from projects.studies.fusion.run import load_row, make_worlds, pretrained
    from projects.studies.memory.rows import Budget

    plan = planned(args.rows, args.seeds)
    if args.memory is not None:
        keep_large_blocks()
        make_turns(args.memory)
        run_memory(args.memory, args.out / 'memory', args.results, args.seeds or [0], Budget(iterations=args.budget or 300))
    elif not args.report_only:
        keep_large_blocks()
        budget = replace(BUDGET, iterations=args.budget or BUDGET.iterations)
        run_rows(make_worlds(args.data_root), make_rigs(args.rig_root or args.data_root), args.out, args.results, plan, budget,
                 args.image_steps)
    if not args.no_report:
        write_report(args.results, args.doc)
        weights = pretrained(args.out / f'seed{(args.seeds or [0])[0]}')
        played = play_or_say(load_row(PRETRAIN, args.data_root / 'world0'), weights)
        report_study(args.out / 'report.html', 'Encodings study (scene: the LiDAR-only detector that all rows start from)',
                     section_of(args.doc, MARKERS), args.doc.parent, PRETRAIN, scene=played)


if __name__ == '__main__':
    run_cli(main)
