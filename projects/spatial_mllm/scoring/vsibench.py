"""Spatial: scoring. In: answers to VSI-Bench as text. Out: scores of each and in all, by either of two published protocols.

The protocols differ in how they read an answer, in how they compare numbers and in what they average; they are never mixed.
`official` is the benchmark's own (Yang et al., Thinking in Space, 2024; vision-x-nyu/thinking-in-space), `spatial_mllm` that of
Spatial-MLLM (Wu et al., 2025; diankun-wu/Spatial-MLLM). What is odd about them stays as published; tests/reference has
the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

LEVELS = tuple(f'object_rel_direction_{level}' for level in ('easy', 'medium', 'hard'))
DIRECTION = 'object_rel_direction'
CHOICES = (*LEVELS, 'object_rel_distance', 'route_planning', 'obj_appearance_order')
NUMBERS = ('object_counting', 'object_abs_distance', 'object_size_estimation', 'room_size_estimation')
TASKS = (*NUMBERS, 'object_rel_distance', DIRECTION, 'route_planning', 'obj_appearance_order')
"""The eight of the published tables, in their order; direction has three levels."""
EXTRA = ('exist',)
"""A choice that only made rooms ask (does the model see at all): reported beside the tables, in no mean."""
_MRA, _ACCURACY = 'MRA:.5:.95:.05', 'accuracy'
_STRICTNESS = np.linspace(0.5, 0.95, 10)
_STRICTNESS_32 = (0.5 + 0.05 * np.arange(10)).astype(np.float32)


class GroundTruthError(ValueError):
    """A row whose truth no answer can be compared with."""


class MissingLevelError(KeyError):
    """Easy directions without those of another level: the published code has no result then."""


def read_official(prediction: str) -> str:
    """The text before the first space, without dots at its end: a leading space leaves nothing."""
    return prediction.split(' ')[0].rstrip('.').strip()


def score_official(question_type: str, prediction: str, truth: str) -> float:
    """1 or 0 for a choice; for a number the share of ten thresholds t with |p - g| / g <= 1 - t, 0 where none is read.

    A negative truth makes every number right; one that is no number, none.

    Raises:
        GroundTruthError: the truth is zero and a number was answered.
        ValueError: no such question type.
    """
    answer = read_official(prediction)
    if _is_choice(question_type):
        return float(answer.lower() == truth.lower())
    number, target = _number(answer), _number(truth)
    if number is None or target is None:
        return 0.0
    if target == 0:
        raise GroundTruthError('the ground truth is 0, and no error is relative to that')
    return float(np.mean(abs(number - target) / target <= 1 - _STRICTNESS))


def read_spatial_mllm(prediction: str) -> str:
    """The last <answer> block, or all; blanks made one, dots at the end and capitals gone."""
    blocks = re.findall(r'<answer>(.*?)</answer>', prediction, re.DOTALL)
    return re.sub(r'\s+', ' ', blocks[-1] if blocks else prediction).strip().rstrip('.').lower()


def score_spatial_mllm(question_type: str, prediction: str, truth: str) -> float:
    """1 or 0 for a choice, of the whole text; for a number the share of ten thresholds t with |p - g| / |g| < 1 - t (float32).

    Commas are left out of numbers. A truth of zero is hit by zero alone, one that is no number by none.

    Raises:
        ValueError: no such question type.
    """
    answer, wanted = read_spatial_mllm(prediction), read_spatial_mllm(truth)
    if _is_choice(question_type):
        return float(answer.strip() == wanted.strip())
    number, target = _number(answer.replace(',', '')), _number(wanted.replace(',', ''))
    if number is None or target is None:
        return 0.0
    with np.errstate(over='ignore', invalid='ignore'):
        error = abs(np.float32(number) - np.float32(target)) / (abs(np.float32(target)) + np.float32(1e-8))
        return float((error < np.float32(1) - _STRICTNESS_32).astype(np.float32).mean())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_choice(question_type: str) -> bool:
    if question_type not in (*NUMBERS, *CHOICES, *EXTRA):
        raise ValueError(f'{question_type!r} is no question type of VSI-Bench: {", ".join((*NUMBERS, *CHOICES))}')
    return question_type not in NUMBERS


def check_truth(question_type: str, truth: str, protocol: str) -> None:
    """Refuses what no answer can be compared with.

    Raises:
        GroundTruthError: no finite number where one is asked for, or zero by `official`, whose errors are relative to it.
        ValueError: no such question type.
    """
    if _is_choice(question_type):
        return
    target = _number(truth.replace(',', '') if protocol == 'spatial_mllm' else truth)
    if target is None or not np.isfinite(target):
        raise GroundTruthError(f'the ground truth {truth!r} is no number')
    if target == 0 and protocol == 'official':
        raise GroundTruthError('the ground truth is 0, and no error is relative to that')


def official_table(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """(question type, score) of each row -> the published table, in percent: `overall`, then the tasks that are there.

    `overall` is the mean over tasks, direction being the mean of its three levels. Without easy directions, the other levels
    count in `overall` as tasks of their own, and the table does not show them.

    Raises:
        MissingLevelError: easy directions without medium or hard ones.
    """
    means = _means(scores)
    named = {f'{kind}_{_metric(kind)}': means[kind] for kind in sorted(means)}
    easy, *others = (f'{level}_{_ACCURACY}' for level in LEVELS)
    if easy in named:
        missing = [name for name in others if name not in named]
        if missing:
            raise MissingLevelError(missing[0])
        named[f'{DIRECTION}_{_ACCURACY}'] = sum(named.pop(name) for name in (easy, *others)) / 3.0
    table = {'overall': sum(named.values()) / len(named) * 100.0} if named else {}
    shown = (f'{task}_{_metric(task)}' for task in TASKS)
    return {**table, **{name: named[name] * 100.0 for name in shown if name in named}}


def present_table(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    """As `official_table` for rows it has no result for: direction is the mean of the levels that are there."""
    means = _means(scores)
    levels = [means.pop(level) for level in LEVELS if level in means]
    if levels:
        means[DIRECTION] = sum(levels) / len(levels)
    shown = {f'{task}_{_metric(task)}': means[task] * 100.0 for task in TASKS if task in means}
    return {'overall': sum(shown.values()) / len(shown), **shown} if shown else {}


def spatial_mllm_table(scores: Iterable[tuple[str, float]]) -> dict[str, dict]:
    """(question type, score) of each row -> fractions: `per_question_type`, and for choices (`acc`), numbers (`mra`) and `all`
    the mean over rows (`micro`) and over tasks (`macro`, where direction is the mean of the levels that are there)."""
    rows = list(scores)
    means = _means(rows)
    counts = {kind: sum(1 for other, _ in rows if other == kind) for kind in means}
    levels = [means[level] for level in LEVELS if level in means]
    direction = {DIRECTION: float(np.mean(levels))} if levels else {}
    tasks = {**direction, **{kind: means[kind] for kind in sorted(means) if kind not in LEVELS}}
    of_kind = {kind: {'score': means[kind], 'count': counts[kind]} for kind in sorted(means)}
    table: dict[str, dict] = {'per_question_type': of_kind}
    for name, wanted in dict(acc=(False,), mra=(True,), all=(False, True)).items():
        table[name] = {'micro': _mean(score for kind, score in rows if (kind in NUMBERS) in wanted),
                       'macro': _mean(score for task, score in tasks.items() if (task in NUMBERS) in wanted)}
    return table


def missing_tasks(kinds: Iterable[str]) -> list[str]:
    """Tasks, and levels of direction, without any row."""
    found = set(kinds)
    levels = [level for level in LEVELS if level not in found]
    missing = [task for task in TASKS if task != DIRECTION and task not in found]
    return [*missing, *([DIRECTION] if len(levels) == len(LEVELS) else levels)]


def _metric(kind: str) -> str:
    return _MRA if kind in NUMBERS else _ACCURACY


def _means(scores: Iterable[tuple[str, float]]) -> dict[str, float]:
    of_kind: dict[str, list[float]] = {}
    for kind, score in scores:
        of_kind.setdefault(kind, []).append(score)
    return {kind: _mean(values) for kind, values in of_kind.items()}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0
