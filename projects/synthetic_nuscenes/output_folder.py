"""Writing stage: what state an output folder is in, and how it moves from empty to whole; paths in, states out.

A folder is this tool's own from the moment its marker file exists. Rows of finished scenes wait in `.parts/`; the
tables appear last, by one rename, so that a folder with `v1.0-mini/` is always whole.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from projects.synthetic_nuscenes.camera_labels import LABELS_FOLDER, write_class_names
from projects.synthetic_nuscenes.rig import LIDAR_CHANNEL, RIGS
from projects.synthetic_nuscenes.settings import Settings

VERSION, FORECAST_VERSION = 'v1.0-mini', 'v1.0-trainval'
MARKER_NAME = 'synthetic_nuscenes.json'
PARTS_NAME = '.parts'
# Raised whenever the same settings would give other bytes.
GENERATOR_VERSION = 1
# In the order in which they are deleted: what says 'finished' goes first.
_OWN_FOLDERS = (VERSION, FORECAST_VERSION, PARTS_NAME, 'samples', 'sweeps', 'maps', LABELS_FOLDER, 'nuscenes_gt_database')
_DERIVED_FILES = ('nuscenes_infos_*.pkl', 'nuscenes_dbinfos_*.pkl')


class OutputFolderError(RuntimeError):
    """The output folder cannot be used; the message names it and says what to do."""


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is either whole or absent."""
    unfinished = path.with_name(path.name + '.tmp')
    unfinished.write_text(text)
    os.replace(unfinished, path)


class OutputFolder:
    """One data set's folder."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root, self.settings = root, settings
        self.marker = root / MARKER_NAME
        self.parts = root / PARTS_NAME
        # The prediction challenge's splits are of v1.0-trainval, and so are the forecast world's scene names.
        self.version = FORECAST_VERSION if settings.forecast else VERSION

    def _description(self) -> dict[str, Any]:
        return {'generator_version': GENERATOR_VERSION, 'settings': self.settings.to_json()}

    def _read_marker(self) -> dict[str, Any] | None:
        try:
            content = json.loads(self.marker.read_text())
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        return content if isinstance(content, dict) and 'generator_version' in content else None

    def is_complete(self) -> bool:
        """True where the whole data set with these settings is there."""
        return self._read_marker() == self._description() and (self.root / self.version).is_dir()

    def prepare(self, force: bool = False) -> None:
        """Make the folder ready to be written or resumed.

        Raises:
            OutputFolderError: it holds something else.
        """
        if self.root.exists() and not self.root.is_dir():
            raise OutputFolderError(f'{self.root} is a file, not a folder; choose another --out')
        found = self._read_marker()
        if found is None and self.root.is_dir() and any(self.root.iterdir()):
            raise OutputFolderError(
                f'{self.root} already holds data that this tool did not make; choose an empty folder for --out '
                '(--force does not delete it either)'
            )
        if found is not None and force:
            self._delete()
        elif found is not None and found != self._description():
            changed = _changed(found.get('settings', {}), self.settings.to_json()) or 'the generator itself'
            raise OutputFolderError(
                f'{self.root} holds a synthetic data set made with other settings (differs in: {changed}); '
                'choose another --out, or pass --force to replace it'
            )
        self._make_folders()

    def _make_folders(self) -> None:
        cameras = RIGS[self.settings.rig]
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.marker, json.dumps(self._description(), indent=2, sort_keys=True))
        for channel in (LIDAR_CHANNEL, *(camera.channel for camera in cameras)):
            (self.root / 'samples' / channel).mkdir(parents=True, exist_ok=True)
            (self.root / 'sweeps' / channel).mkdir(parents=True, exist_ok=True)
        (self.root / 'maps').mkdir(exist_ok=True)
        if self.settings.camera_labels:
            for camera in cameras:
                (self.root / LABELS_FOLDER / camera.channel).mkdir(parents=True, exist_ok=True)
            write_class_names(self.root)
        self.parts.mkdir(exist_ok=True)

    def _delete(self) -> None:
        """Remove this data set and what was derived from it, tables first; other files stay."""
        for name in _OWN_FOLDERS:
            if (self.root / name).exists():
                shutil.rmtree(self.root / name)
        for pattern in _DERIVED_FILES:
            for path in self.root.glob(pattern):
                path.unlink()
        self.marker.unlink()

    def part_path(self, scene_name: str) -> Path:
        """Where a finished scene's rows wait."""
        return self.parts / f'{scene_name}.json'

    def finish(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        """Write the tables, rename them into place, drop the parts."""
        unfinished = self.parts / self.version
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for name, rows in sorted(tables.items()):
            (unfinished / f'{name}.json').write_text(json.dumps(rows, indent=0, sort_keys=True))
        os.replace(unfinished, self.root / self.version)
        self.drop_parts()

    def drop_parts(self) -> None:
        """Remove the rows that waited; the tables hold them now."""
        shutil.rmtree(self.parts, ignore_errors=True)


def _changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return ', '.join(f'{key} {old.get(key)!r} -> {new.get(key)!r}' for key in keys)
