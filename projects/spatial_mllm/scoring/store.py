"""Spatial: scoring. In: answers as they are finished, of several processes. Out: all of them again after a crash, none twice.

A folder holds `run.json` and `model.json`, what the answers were made with, and one file of JSON lines per process. An answer
is one line, written at once and forced to the disk; a line that a crash cut off is not read, and its question is asked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUN = 'run.json'
"""What was asked: files, frames, sampler."""
MODEL = 'model.json'
"""What answered."""


class AnswerStore:
    """Finished answers of a run.

    Args:
        folder: of this run; made where it does not exist.
        worker: this process's number among those that answer at the same time; each writes a file of its own.
        settings: what the answers depend on (checkpoint, frames, sampler, ...), plain JSON. A folder of answers that were made
            with others is refused.
        key: what makes a row unique: 'id' (VSI-Bench) or 'question_id' (SQA3D).

    Raises:
        ValueError: the folder's answers were made with other settings, naming those that differ.
    """

    def __init__(self, folder: str | Path, worker: int = 0, settings: Mapping[str, Any] | None = None, key: str = 'id') -> None:
        self.folder = Path(folder)
        self.key = key
        self._path = self.folder / f'answers_{worker:04d}.jsonl'
        self.folder.mkdir(parents=True, exist_ok=True)
        if settings is not None:
            self.check(settings)

    def finished(self) -> dict[str, dict]:
        """Key as text -> row, of all processes.

        Of answers to one question the first of the first file counts; one with a `problem` (the video could not be read) only
        where there is no other.
        """
        rows: dict[str, dict] = {}
        for path in sorted(self.folder.glob('answers_*.jsonl')):
            for line in path.read_bytes().split(b'\n')[:-1]:  # what follows the last line end was cut off
                row = _row(line)
                if row is None or self.key not in row:
                    continue
                name = str(row[self.key])
                if name not in rows or 'problem' in rows[name]:
                    rows[name] = row
        return rows

    def add(self, row: Mapping[str, Any]) -> None:
        """Keeps one answer. The row has the store's key and is plain JSON.

        Raises:
            ValueError: the row lacks the key.
        """
        if self.key not in row:
            raise ValueError(f'{self._path}: an answer without {self.key!r} cannot be found again: keys {sorted(row)}')
        line = json.dumps(dict(row), ensure_ascii=False).encode() + b'\n'
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b'\n':
                line = b'\n' + line  # a crash cut the line before this one
            written = os.write(file, line)
            if written != len(line):
                raise OSError(f'{self._path}: {written} of {len(line)} bytes of an answer were written: is the disk full?')
            os.fsync(file)
        finally:
            os.close(file)

    def check(self, settings: Mapping[str, Any], name: str = RUN) -> None:
        """Writes plain JSON settings into the file of that name, or compares them with what stands in it.

        Raises:
            ValueError: they differ, naming how.
        """
        settings = json.loads(json.dumps(dict(settings)))
        path = self.folder / name
        own = self.folder / f'{name}.{os.getpid()}'
        own.write_text(json.dumps(settings, indent=2, sort_keys=True) + '\n')
        try:
            os.link(own, path)  # whole or not at all, also where several processes begin at once
        except FileExistsError:
            stored = json.loads(path.read_text())
            names = sorted(name for name in {*stored, *settings} if stored.get(name) != settings.get(name))
            if names:
                told = ', '.join(f'{name} = {stored.get(name)!r}, now {settings.get(name)!r}' for name in names)
                raise ValueError(f'{self.folder}: the answers in it were made with {told}. Give a run with other settings '
                                 'another folder') from None
        finally:
            own.unlink()


def _row(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
