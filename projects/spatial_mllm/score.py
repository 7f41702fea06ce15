"""Spatial: command line. In: a file of answers to a benchmark. Out: its score by one protocol, printed and as JSON.

    python -m projects.spatial_mllm.score vsibench answers.jsonl --protocol official
    python -m projects.spatial_mllm.score sqa3d answers.jsonl --protocol em --questions Q.json --annotations A.json

Exit code: 0 where rows were scored (what is incomplete is said), 2 where the file was refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from projects.spatial_mllm.scoring.questions import join_questions, read_sqa3d_questions, read_vsibench_questions
from projects.spatial_mllm.scoring.report import PROTOCOLS, Report, score
from projects.spatial_mllm.scoring.rows import KEYS, RefusedFileError, Row, read_rows, refuse_other_benchmarks
from projects.spatial_mllm.scoring.store import AnswerStore

_SHOWN = 20
"""Bad rows that are printed; `--out` has all."""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        report = score_file(args.rows, args.benchmark, args.protocol, args.questions, getattr(args, 'annotations', None))
        print(report.text(_SHOWN))
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(dataclasses.asdict(report), indent=2) + '\n')
    except (RefusedFileError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def score_file(rows: Path, benchmark: str, protocol: str, questions: Path | None = None,
               annotations: Path | None = None) -> Report:
    """Scores a file of answers, or a folder of them as an evaluation keeps it.

    Args:
        rows: JSON list or JSON lines; a row has `prediction` and the question's own keys, or the key of its question alone.
        benchmark: 'vsibench' or 'sqa3d'.
        protocol: one of the benchmark's `PROTOCOLS`.
        questions: the benchmark's questions; those without an answer then count 0.
        annotations: SQA3D's second file.

    Raises:
        RefusedFileError: naming the file, where nothing of it can be scored.
    """
    answers, problems = _read_folder(rows, benchmark) if rows.is_dir() else read_rows(rows)
    refuse_other_benchmarks(answers, benchmark)
    if questions is not None:
        asked, odd = _questions(benchmark, questions, annotations)
        answers, unknown = join_questions(answers, asked, KEYS[benchmark])
        problems += [*odd, *unknown]
    report = score(answers, benchmark, protocol)
    report.problems[:0] = problems
    if not report.num_rows:
        raise RefusedFileError(f'{rows}: no row can be scored. {report.problems[0] if report.problems else "It is empty"}')
    return report


def _read_folder(folder: Path, benchmark: str) -> tuple[list[Row], list[str]]:
    """What an evaluation's processes finished, each question once."""
    found = {name: AnswerStore(folder, key=key).finished() for name, key in KEYS.items()}
    if not found[benchmark]:
        other = next((name for name, rows in found.items() if rows), None)
        raise RefusedFileError(f'{folder}: holds no finished answers to {benchmark} (answers_*.jsonl)' +
                               (f', but answers to {other}' if other else ''))
    return [Row(f'{folder}: {KEYS[benchmark]} {key}', row) for key, row in found[benchmark].items()], []


def _questions(benchmark: str, questions: Path, annotations: Path | None) -> tuple[dict[str, Row], list[str]]:
    if benchmark == 'vsibench':
        return read_vsibench_questions(questions)
    if annotations is None:
        raise RefusedFileError(f'{questions}: SQA3D keeps the answers apart: give its second file with --annotations')
    return read_sqa3d_questions(questions, annotations)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = parser.add_subparsers(dest='benchmark', required=True)
    for name, protocols in PROTOCOLS.items():
        one = benchmarks.add_parser(name)
        one.add_argument('rows', type=Path, metavar='ROWS', help='JSON list, JSON lines, or the folder of an evaluation')
        one.add_argument('--protocol', choices=list(protocols), default=next(iter(protocols)),
                         help='; '.join(f'{protocol}: {told}' for protocol, told in protocols.items()))
        one.add_argument('--questions', type=Path, help="the benchmark's questions, where ROWS has answers alone")
        if name == 'sqa3d':
            one.add_argument('--annotations', type=Path, help="SQA3D's second file")
        one.add_argument('--out', type=Path, help='JSON file for scores, flags and all bad rows')
    return parser


if __name__ == '__main__':
    sys.exit(main())
