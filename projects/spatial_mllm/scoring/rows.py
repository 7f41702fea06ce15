"""Spatial: scoring. In: a file of answers, JSON list or JSON lines. Out: its rows, and by name what could not be read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEYS = {'vsibench': 'id', 'sqa3d': 'question_id'}
"""What makes a row unique."""
_MARKS = {
    'vsibench': ({'question_type', 'ground_truth'}, {'scene_name', 'question_type'}, {'id', 'prediction'}),
    'sqa3d': ({'answers'}, {'question_id'}),
}
"""Keys by which a row shows whose it is: all of one set."""


@dataclass(frozen=True)
class Row:
    """One answer. `where` names file and row, for messages; rows count from 1."""

    where: str
    values: dict[str, Any]


class RefusedFileError(ValueError):
    """A file that holds nothing that can be scored; the message names it and what it is."""


def read_rows(path: str | Path) -> tuple[list[Row], list[str]]:
    """Rows of a file, in its order, and a sentence for each that cannot be read.

    A file that was cut off gives the rows before the cut, and names the row in which it ends.

    Raises:
        RefusedFileError: no such file, or neither a JSON list nor JSON lines.
    """
    path = Path(path)
    text = _text(path)
    start = text.lstrip()
    if start.startswith('['):
        return _list_rows(path, text, text.index('[') + 1)
    if start.startswith('{'):
        return _line_rows(path, text)
    raise RefusedFileError(f'{path}: holds neither a JSON list of rows nor a JSON object a line, in UTF-8')


def read_listed_rows(path: str | Path, key: str) -> tuple[list[Row], list[str]]:
    """As `read_rows`, of a JSON object that holds the list of rows under `key`, as the files of SQA3D do.

    Raises:
        RefusedFileError: no such file, or no such list in it.
    """
    path = Path(path)
    text = _text(path)
    found = re.search(rf'"{key}"\s*:\s*\[', text)
    if found is None or not text.lstrip().startswith('{'):
        raise RefusedFileError(f'{path}: holds no list under {key!r}, so it is not the {key} file of SQA3D')
    return _list_rows(path, text, found.end())


def _text(path: Path) -> str:
    """What is no UTF-8 stays as lone surrogates, by which `_keep` finds the rows that hold it."""
    try:
        return path.read_bytes().decode('utf-8-sig', errors='surrogateescape')
    except OSError as error:
        raise RefusedFileError(f'{path}: cannot be read ({error})') from error


def _line_rows(path: Path, text: str) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    problems: list[str] = []
    lines = [(number, line) for number, line in enumerate(text.split('\n'), 1) if line.strip()]
    for number, line in lines:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # also of numbers and of nesting without end
            cut = ' (the file ends in the middle of a row: was it cut off?)' if number == lines[-1][0] else ''
            problems.append(f'{path}: row {number} is not JSON: {getattr(error, "msg", error)}{cut}')
            continue
        _keep(rows, problems, f'{path}: row {number}', values)
    if not rows and problems:
        raise RefusedFileError(f'{problems[0]}. No row of the file can be read: it must be a JSON list of rows or JSON lines')
    return rows, problems


def _list_rows(path: Path, text: str, start: int) -> tuple[list[Row], list[str]]:
    """Rows of the list whose bracket stands before `start`."""
    rows: list[Row] = []
    problems: list[str] = []
    decoder = json.JSONDecoder()
    position = _after_blanks(text, start)
    number = 1
    while not text.startswith(']', position):
        try:
            values, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            problems.append(f'{path}: row {number} is not JSON: {getattr(error, "msg", error)} at character '
                            f'{getattr(error, "pos", position)} of {len(text)}; the rows from there on are lost (was the file '
                            'cut off?)')
            break
        _keep(rows, problems, f'{path}: row {number}', values)
        position = _after_blanks(text, position)
        number += 1
        if text.startswith(',', position):
            position = _after_blanks(text, position + 1)
        elif not text.startswith(']', position):
            problems.append(f'{path}: the list ends after row {number - 1} without a bracket (was the file cut off?)')
            break
    return rows, problems


def _after_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _keep(rows: list[Row], problems: list[str], where: str, values: Any) -> None:
    if not isinstance(values, dict):
        problems.append(f'{where} is no JSON object')
        return
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problems.append(f'{where} holds what is no text in UTF-8; the row is left out')
        return
    rows.append(Row(where, values))


def looks_like(values: dict[str, Any], benchmark: str) -> bool:
    """Whether a row has the keys of that benchmark."""
    return any(marks <= values.keys() for marks in _MARKS[benchmark])


def refuse_other_benchmarks(rows: list[Row], benchmark: str) -> None:
    """A file of which no row is this benchmark's, and some row is another's, was given by mistake.

    Raises:
        RefusedFileError: naming file, row and the benchmark that it belongs to.
    """
    if any(looks_like(row.values, benchmark) for row in rows):
        return
    for row in rows:
        for other in _MARKS:
            if other != benchmark and looks_like(row.values, other):
                raise RefusedFileError(f'{row.where} is an answer to {other} (keys {sorted(row.values)}), not to {benchmark}. '
                                       f'Score the file with: python -m projects.spatial_mllm.score {other} FILE')


def text_of(value: Any) -> str | None:
    """A prediction or a truth as text: numbers as they are written; None for what is neither."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
