"""Stage data: opens nuScenes-format folders (tables and sensor files) and says plainly what is wrong with them.

In: root folder and version; out: the devkit's `NuScenes`, or single JSON tables. No frame.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

VERSIONS = ('v1.0-trainval', 'v1.0-test', 'v1.0-mini')
CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')
TABLES = (
    'attribute', 'calibrated_sensor', 'category', 'ego_pose', 'instance', 'log', 'map', 'sample', 'sample_annotation',
    'sample_data', 'scene', 'sensor', 'visibility',
)
Record = dict[str, Any]


def check_version_folder(root: Path, version: str) -> None:
    """Raises `DataError` unless `root/version` holds every table of schema v1.0."""
    if version not in VERSIONS:
        raise DataError(f'unknown nuScenes version {version!r}: use one of {", ".join(VERSIONS)} (or v1.0 for '
                        f'v1.0-trainval and v1.0-test together)')
    if not root.is_dir():
        raise DataError(f'{root} is not a folder: --root-path must name the folder that holds samples/, sweeps/, '
                        f'maps/ and {version}/')
    if not (root / version).is_dir():
        found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name.startswith('v1.'))
        raise DataError(f'{root / version} is missing (versions found in {root}: {", ".join(found) or "none"}): pass '
                        f'one of those as --version, or unpack the tables of {version} there')
    missing = [name for name in TABLES if not (root / version / f'{name}.json').is_file()]
    if missing:
        raise DataError(f'{root / version / missing[0]}.json is missing: unpack the tables of {version} again')


def open_nuscenes(root: Path, version: str) -> NuScenes:
    """The devkit's view of `root/version`, loaded once.

    Raises:
        DataError: For a missing folder, table or map mask, an unreadable table, or tables that contradict each other.
    """
    check_version_folder(root, version)
    from nuscenes.nuscenes import NuScenes
    try:
        return NuScenes(version=version, dataroot=str(root), verbose=False)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError do not say which file they are about
        for name in TABLES:
            read_table(root, version, name)
        raise DataError(f'{root / version}: {error}') from error
    except KeyError as error:
        raise DataError(f'the tables in {root / version} contradict each other: token or field {error} is referred to '
                        f'but does not exist; unpack the tables of {version} again') from error
    except (AssertionError, OSError) as error:  # the devkit asserts on map masks and on lidarseg files
        raise DataError(f'{root}: {error}; unpack the missing files there') from error


def read_table(root: Path, version: str, name: str) -> list[Record]:
    """One JSON table as a list of records; raises `DataError` naming the file if it is missing or unreadable."""
    path = root / version / f'{name}.json'
    try:
        records = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f'cannot read {path} ({error.strerror}): unpack the tables of {version} there') from error
    except ValueError as error:
        raise DataError(f'{path} is not a JSON table ({error}): unpack the tables of {version} again') from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f'{path} is not a JSON table (a list of records): unpack the tables of {version} again')
    return records


class SensorFiles:
    """Tells whether sensor files exist, from one directory listing per folder (not one system call per file).

    Args:
        root: The data set's root folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str] | None] = {}

    def require(self, filenames: Iterable[str]) -> None:
        """Raises `DataError` naming the first file (relative to the root) that is not there."""
        for filename in filenames:
            if not self.has_folder(filename) or os.path.basename(filename) not in self._listing(filename):
                raise DataError(f'{self._root / filename} is missing: the tables refer to it; unpack the file blob '
                                f'that holds it into {self._root}')

    def has_folder(self, filename: str) -> bool:
        """Whether the folder of this file exists at all (a download without cameras has no camera folders)."""
        self._listing(filename)
        return self._names[os.path.dirname(filename)] is not None

    def _listing(self, filename: str) -> set[str]:
        folder = os.path.dirname(filename)
        if folder not in self._names:
            path = self._root / folder
            self._names[folder] = set(os.listdir(path)) if path.is_dir() else None
        return self._names[folder] or set()
