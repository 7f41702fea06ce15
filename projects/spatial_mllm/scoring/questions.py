"""Spatial: scoring. In: answers alone, the benchmark's questions. Out: rows with both, also of what was not answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from projects.spatial_mllm.scoring.rows import KEYS, RefusedFileError, Row, read_rows


def join_questions(answers: Sequence[Row], questions: dict[str, dict], key: str) -> tuple[list[Row], list[str]]:
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
        rows.append(Row(f'question {name}, which nobody answered', question) if own is None else
                    Row(own.where, {**own.values, **question}))
    return rows, problems


def read_vsibench_questions(path: str | Path) -> dict[str, dict]:
    """VSI-Bench's `test.jsonl` (Apache-2.0; its videos are not: see docs/spatial_mllm.md) -> id as text -> row.

    Raises:
        RefusedFileError: no such file, or a row without an id.
    """
    rows, problems = read_rows(path)
    problems += [f'{row.where} has no id' for row in rows if KEYS['vsibench'] not in row.values]
    if problems:
        raise RefusedFileError(problems[0])
    return {str(row.values['id']): {name: value for name, value in row.values.items() if name != 'prediction'} for row in rows}


def read_sqa3d_questions(questions: str | Path, annotations: str | Path) -> dict[str, dict]:
    """SQA3D's two files (CC BY 4.0), joined on `question_id` -> id as text -> scene_id, situation, question, answers, pose.

    Raises:
        RefusedFileError: naming the file: it is not of that kind, or a question has no annotation.
    """
    of_question = {str(one['question_id']): one for one in _listed(questions, 'questions')}
    of_annotation = {str(one['question_id']): one for one in _listed(annotations, 'annotations')}
    missing = [name for name in of_question if name not in of_annotation]
    if missing:
        raise RefusedFileError(f'{annotations}: no annotation for {len(missing)} of {len(of_question)} questions of '
                               f'{questions}, first question_id {missing[0]}: are both of one split?')
    for name, one in of_question.items():
        scene, other = one.get('scene_id'), of_annotation[name].get('scene_id')
        if scene is not None and other is not None and scene != other:
            raise RefusedFileError(f'{annotations}: question_id {name} is about {other!r}, in {questions} about {scene!r}: are '
                                   'both of one split?')
    return {name: {**of_annotation[name], **one} for name, one in of_question.items()}


def _listed(path: str | Path, key: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise RefusedFileError(f'{path}: cannot be read as JSON ({error}): was the file cut off?') from error
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise RefusedFileError(f'{path}: holds no list under {key!r}, so it is not the {key} file of SQA3D')
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or 'question_id' not in row:
            raise RefusedFileError(f'{path}: row {number} of {key!r} has no question_id')
    return rows
