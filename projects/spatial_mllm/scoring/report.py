"""Spatial: scoring. In: rows of answers, a protocol's name. Out: a report: scores, bad rows by name, what is incomplete.

A bad row never ends a run: it is named. Where its question is known but its answer is missing it scores 0; where nothing can be
said of it (no truth, an unknown type) it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from projects.spatial_mllm.scoring import sqa3d, vsibench
from projects.spatial_mllm.scoring.rows import KEYS, Row, text_of

PROTOCOLS = {
    'vsibench': dict(official="the benchmark's own code: first word, error <= 1 - t, percent",
                     spatial_mllm="Spatial-MLLM's: last <answer> block, error < 1 - t, fractions, micro and macro"),
    'sqa3d': dict(em='EM@1, the raw text among the references, and EM-R, cleaned and in part',
                  leo="LEO's em and em_refined with all that is odd about them",
                  llm_script="the benchmark's script for language models: a word in common with the first reference"),
}
"""Benchmark -> name -> what it does; the first is the default."""


@dataclass
class Report:
    """What a file of answers is worth.

    Attributes:
        benchmark, protocol: whose numbers they are.
        scores: name -> number, as the protocol publishes them (`official` in percent, all others fractions).
        beside: scores of questions that the benchmark does not have, in no mean.
        num_rows: that count in the scores.
        problems: a sentence per bad row, naming it.
        flags: why the numbers are not those of a whole run.
    """

    benchmark: str
    protocol: str
    scores: dict[str, float] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    num_rows: int = 0
    problems: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

    def text(self, max_problems: int | None = None) -> str:
        """For a terminal, with the first so many bad rows; None: all."""
        lines = [f'{self.benchmark}, protocol {self.protocol}, {self.num_rows} rows']
        shown = {**self.scores, **{f'{name} (not of the benchmark)': score for name, score in self.beside.items()}}
        width = max(map(len, shown), default=0)
        lines += [f'  {name:{width}}  {score:.4f}' for name, score in shown.items()]
        lines += [f'INCOMPLETE: {flag}' for flag in self.flags]
        lines += [f'bad row: {problem}' for problem in self.problems[:max_problems]]
        hidden = len(self.problems[len(self.problems) if max_problems is None else max_problems:])
        return '\n'.join([*lines, *([f'... and {hidden} bad rows more'] if hidden else [])])


@dataclass
class _Answer:
    """A row that can be scored."""

    where: str
    kind: str
    prediction: str | None  # None: there is no answer, which is never right, whatever a protocol does with an empty one
    truth: Any


def score(rows: Sequence[Row], benchmark: str, protocol: str) -> Report:
    """Scores rows of a benchmark by one of its `PROTOCOLS`.

    Raises:
        ValueError: no such benchmark, or none of its protocols.
    """
    if protocol not in PROTOCOLS.get(benchmark, {}):
        raise ValueError(f'{benchmark!r} has no protocol {protocol!r}. Known: '
                         f'{ {name: list(known) for name, known in PROTOCOLS.items()} }')
    return {'vsibench': score_vsibench, 'sqa3d': score_sqa3d}[benchmark](rows, protocol)


def score_vsibench(rows: Sequence[Row], protocol: str) -> Report:
    """Rows with `question_type`, `ground_truth`, `prediction` -> report by `official` or `spatial_mllm`."""
    report = Report('vsibench', protocol)
    score_one = {'official': vsibench.score_official, 'spatial_mllm': vsibench.score_spatial_mllm}[protocol]
    scores: list[tuple[str, float]] = []
    for answer in _answers(rows, report, _vsibench_question):
        try:
            vsibench.check_truth(answer.kind, answer.truth, protocol)
        except vsibench.GroundTruthError as error:
            report.problems.append(f'{answer.where}: {error}; the row is left out')
            continue
        told = answer.prediction
        scores.append((answer.kind, 0.0 if told is None else score_one(answer.kind, told, answer.truth)))
    report.num_rows = len(scores)
    extra = [row for row in scores if row[0] in vsibench.EXTRA]
    scores = [row for row in scores if row[0] not in vsibench.EXTRA]
    for kind in sorted({kind for kind, _ in extra}):
        of_kind = [score for other, score in extra if other == kind]
        report.beside[f'{kind}_accuracy'] = sum(of_kind) / len(of_kind) * (100.0 if protocol == 'official' else 1.0)
    missing = vsibench.missing_tasks(kind for kind, _ in scores)
    if missing:
        report.flags.append(f'no row of {", ".join(missing)}; means are over what is there')
    _add_table(report, scores)
    return report


def _add_table(report: Report, scores: list[tuple[str, float]]) -> None:
    if report.protocol == 'spatial_mllm':
        table = vsibench.spatial_mllm_table(scores)
        for name in ('all', 'acc', 'mra'):
            report.scores.update({f'{name}_{way}': table[name][way] for way in ('micro', 'macro')})
        report.scores.update({kind: one['score'] for kind, one in table['per_question_type'].items()})
        return
    try:
        report.scores.update(vsibench.official_table(scores))
    except vsibench.MissingLevelError as error:
        report.scores.update(vsibench.present_table(scores))
        report.flags.append(f'the published code stops where {error} is missing; direction is the mean of the levels there are')


def score_sqa3d(rows: Sequence[Row], protocol: str) -> Report:
    """Rows with `question`, `answers`, `prediction` -> report by `em`, `leo` or `llm_script`."""
    report = Report('sqa3d', protocol)
    answers = list(_answers(rows, report, _sqa3d_question))
    report.num_rows = len(answers)
    if protocol == 'leo':
        report.scores.update(sqa3d.leo_table((one.kind, *_leo(one)) for one in answers))
    elif protocol == 'llm_script':
        report.scores['accuracy'] = _share(answers, sqa3d.script)
    else:
        for name, rule in {'EM@1': sqa3d.strict, 'EM-R': sqa3d.refined}.items():
            report.scores[name] = _share(answers, rule)
            for kind in sqa3d.TYPES:
                of_kind = [one for one in answers if one.kind == kind]
                if of_kind:
                    report.scores[f'{name} {kind}'] = _share(of_kind, rule)
    missing = [kind for kind in sqa3d.TYPES if kind not in {one.kind for one in answers}]
    if missing:
        report.flags.append(f'no question of the types {", ".join(missing)}')
    return report


def _leo(answer: _Answer) -> tuple[int, int]:
    return (0, 0) if answer.prediction is None else sqa3d.leo(answer.prediction, answer.truth)


def _share(answers: Sequence[_Answer], rule: Callable[[str, list[str]], bool]) -> float:
    hits = sum(one.prediction is not None and rule(one.prediction, one.truth) for one in answers)
    return hits / len(answers) if answers else 0.0


def _answers(rows: Sequence[Row], report: Report, question_of: Callable[[dict], tuple[str, Any]]) -> list[_Answer]:
    """Rows that can be scored; the others, and those without an answer or asked before, into the report's problems."""
    found: list[_Answer] = []
    seen: dict[str, str] = {}
    for row in rows:
        key = row.values.get(KEYS[report.benchmark])
        where = row.where if key is None else f'{row.where} ({KEYS[report.benchmark]} {key})'
        if key is not None and seen.setdefault(str(key), row.where) != row.where:
            report.problems.append(f'{where} answers the question of {seen[str(key)]} again; the row is left out')
            continue
        try:
            kind, truth = question_of(row.values)
        except ValueError as error:
            report.problems.append(f'{where}: {error}; the row is left out')
            continue
        prediction = text_of(row.values.get('prediction'))
        if prediction is None:
            why = row.values.get('problem') or f'`prediction` is no text but {row.values.get("prediction")!r}'
            report.problems.append(f'{where}: {why}; it scores 0')
        found.append(_Answer(where, kind, prediction, truth))
    return found


def _vsibench_question(values: dict) -> tuple[str, str]:
    kind, truth = values.get('question_type'), text_of(values.get('ground_truth'))
    known = (*vsibench.NUMBERS, *vsibench.CHOICES, *vsibench.EXTRA)
    if kind not in known:
        raise ValueError(f'`question_type` {kind!r} is none of VSI-Bench ({", ".join(known)})')
    if truth is None:
        raise ValueError(f'`ground_truth` is no text but {values.get("ground_truth")!r}; give the questions with --questions '
                         'where the file holds answers alone')
    return str(kind), truth


def _sqa3d_question(values: dict) -> tuple[str, list[str]]:
    answers = values.get('answers')
    listed = answers if isinstance(answers, list) else []
    texts = [text_of(one.get('answer') if isinstance(one, dict) else one) for one in listed]
    if not texts or None in texts:
        raise ValueError(f'`answers` is no list of texts but {answers!r}; give --questions and --annotations where the '
                         'file holds answers alone')
    question = values.get('question')
    if not isinstance(question, str):
        raise ValueError(f'`question` is no text but {question!r}')
    return sqa3d.question_type(question), [text for text in texts if text is not None]
