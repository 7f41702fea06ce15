"""Spatial: made rooms. In: finished rooms, one at a time. Out: a folder of videos and tables that is whole, or can be finished.

A folder is this tool's own from the moment its marker exists. Rooms wait in `.parts/`; tables are written last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from projects.spatial_mllm.rooms.settings import SPLITS, RoomSettings

MARKER_NAME = 'spatial_qa.json'
VIDEOS = 'rooms'
_PARTS = '.parts'
_GENERATOR_VERSION = 1
"""Raised whenever the same settings would give other rooms."""


class OutputFolderError(RuntimeError):
    """The folder cannot be used; the message names it and says what to do."""


class OutputFolder:
    """One set of rooms."""

    def __init__(self, root: Path, settings: RoomSettings) -> None:
        self.root, self.settings = root, settings
        self.marker, self.parts = root / MARKER_NAME, root / _PARTS

    def is_complete(self) -> bool:
        """Whether all rooms of these settings are there."""
        return self._found() == self._description() and not self.parts.exists()

    def prepare(self, force: bool = False) -> None:
        """Makes the folder ready to be filled, or filled further.

        Raises:
            OutputFolderError: it holds something else.
        """
        found = self._found()
        if self.root.exists() and not self.root.is_dir():
            raise OutputFolderError(f'{self.root} is a file; choose another --out')
        if found is None and self.root.is_dir() and any(self.root.iterdir()):
            raise OutputFolderError(f'{self.root} holds data that this tool did not make; choose an empty folder for --out '
                                    '(--force does not delete it either)')
        if found is not None and force:
            for name in (*SPLITS, VIDEOS, _PARTS, 'sheets'):
                shutil.rmtree(self.root / name, ignore_errors=True)
            self.marker.unlink()
        elif found is not None and found != self._description():
            old, new = found.get('settings', {}), self.settings.to_json()
            changed = ', '.join(f'{key} {old.get(key)!r} -> {new.get(key)!r}' for key in new if old.get(key) != new[key])
            raise OutputFolderError(f'{self.root} holds rooms made otherwise ({changed or "by another version of this tool"}); '
                                    'choose another --out, or replace them with --force')
        self.parts.mkdir(parents=True, exist_ok=True)
        write_whole(self.marker, json.dumps(self._description(), indent=2) + '\n')

    def part(self, name: str) -> Path:
        """Where a finished room's questions wait."""
        return self.parts / f'{name}.json'

    def read_parts(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """What waits, room by room."""
        return (json.loads(self.part(name).read_text()) for name in names)

    def finish(self) -> None:
        """The tables are written: nothing waits any more."""
        shutil.rmtree(self.parts)

    def _description(self) -> dict[str, Any]:
        return {'generator_version': _GENERATOR_VERSION, 'settings': self.settings.to_json()}

    def _found(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self.marker.read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and 'generator_version' in content else None


def write_whole(path: Path, text: str) -> None:
    """A file that is whole or not there."""
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    unfinished.write_text(text)
    os.replace(unfinished, path)
