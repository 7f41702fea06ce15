"""Spatial: scoring. In: answers alone, the benchmark's questions. Out: rows with both, also of what was not answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from projects.spatial_mllm.scoring.rows import KEYS, RefusedFileError, Row, read_listed_rows, read_rows


def join_questions(answers: Sequence[Row], questions: Mapping[str, Row], key: str) -> tuple[list[Row], list[str]]:
    """Every question with its answer, in the questions' order; one without has no `prediction`.

    Returns:
        The rows, and a sentence for each answer to a question that is not there.
    """
    given: dict[str, Row] = {}
    problems = []
    for answer in answers:
        name = answer.values.get(key)
        if name is None or str(name) not in questions:
            problems.append(f'{answer.where}: no question has the {key} {name!r}; the row is left out')
        elif str(name) in given:
            problems.append(f'{answer.where} ({key} {name}) is answered in {given[str(name)].where} already: left out')
        else:
            given[str(name)] = answer
    rows = []
    for name, question in questions.items():
        own = given.get(name)
        rows.append(Row(f'question {name}, which nobody answered', question.values) if own is None else
                    Row(own.where, {**own.values, **question.values}))
    return rows, problems


def read_vsibench_questions(path: str | Path) -> tuple[dict[str, Row], list[str]]:
    """VSI-Bench's `test.jsonl` (Apache-2.0; its videos are not: see docs/spatial_mllm.md).

    Returns:
        Id as text -> question, and a sentence for each row that is none.

    Raises:
        RefusedFileError: no such file, or no question in it.
    """
    asked, problems = _by_key(*read_rows(path), KEYS['vsibench'])
    if not asked:
        raise RefusedFileError(problems[0] if problems else f'{path}: holds no question')
    return {name: Row(row.where, {key: value for key, value in row.values.items() if key != 'prediction'})
            for name, row in asked.items()}, problems


def read_sqa3d_questions(questions: str | Path, annotations: str | Path) -> tuple[dict[str, Row], list[str]]:
    """SQA3D's two files (CC BY 4.0), joined on `question_id`.

    Returns:
        Id as text -> scene_id, situation, question, answers, pose; and a sentence for each question that cannot be used: it has
        no annotation, or one of another scene.

    Raises:
        RefusedFileError: naming the file: it is not of that kind, or no question of it can be used.
    """
    asked, problems = _by_key(*read_listed_rows(questions, 'questions'), KEYS['sqa3d'])
    notes, more = _by_key(*read_listed_rows(annotations, 'annotations'), KEYS['sqa3d'])
    problems += more
    joined: dict[str, Row] = {}
    for name, row in asked.items():
        note = notes.get(name)
        scenes = row.values.get('scene_id'), None if note is None else note.values.get('scene_id')
        if note is None:
            problems.append(f'{row.where}: {annotations} has no annotation for question_id {name}; the row is left out')
        elif None not in scenes and scenes[0] != scenes[1]:
            problems.append(f'{row.where}: question_id {name} is about {scenes[0]!r}, in {annotations} about {scenes[1]!r}; '
                            'the row is left out')
        else:
            joined[name] = Row(row.where, {**note.values, **row.values})
    if not joined:
        raise RefusedFileError(f'{problems[0]}. No question can be used: are both files of one split?' if problems else
                               f'{questions}: holds no question')
    return joined, problems


def _by_key(rows: Sequence[Row], problems: list[str], key: str) -> tuple[dict[str, Row], list[str]]:
    """Rows by their key as text, each once; the others into the problems."""
    found: dict[str, Row] = {}
    for row in rows:
        name = str(row.values.get(key))
        if row.values.get(key) is None:
            problems.append(f'{row.where} has no {key}; the row is left out')
        elif name in found:
            problems.append(f'{row.where} has the {key} {name} of {found[name].where}; the row is left out')
        else:
            found[name] = row
    return found, problems
