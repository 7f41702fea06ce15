"""Stage data: opens nuScenes-format folders (tables and sensor files) and says plainly what is wrong with them.

In: root folder and version; out: the devkit's `NuScenes`, or single JSON tables. No frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
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


def check_version_folder(root: Path, version: str, *, own: bool = False) -> None:
    """Raises `DataError` unless `root/version` holds every table of schema v1.0.

    Args:
        root: The data set's root folder.
        version: Name of the folder with the tables.
        own: Whether it may be another version than nuScenes' own, whose splits are known.
    """
    if version not in VERSIONS and not own:
        raise DataError(f'unknown nuScenes version {version!r}: use one of {", ".join(VERSIONS)} (or v1.0 for '
                        f'v1.0-trainval and v1.0-test together); tables of another name need --splits FILE')
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
    check_version_folder(root, version, own=True)
    from nuscenes.nuscenes import NuScenes
    try:
        return NuScenes(version=version, dataroot=str(root), verbose=False)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError do not say which file they are about
        for name in TABLES:
            read_table(root, version, name)
        raise DataError(f'{root / version}: {error}') from error
    except KeyError as error:
        raise _contradiction(root, version, error) from error
    except IndexError as error:  # the devkit looks at the first map
        raise DataError(f'{root / version / "map.json"} has no records: the devkit needs one, with a mask image in maps/ and '
                        'the log_tokens of every log') from error
    except (AssertionError, OSError) as error:  # the devkit asserts on map masks and on lidarseg files
        raise DataError(f'{root}: {error}; unpack the missing files there') from error


@contextmanager
def tables_agree(root: Path, version: str) -> Iterator[None]:
    """Around code that follows tokens: `DataError` names the token or field that is referred to but does not exist."""
    try:
        yield
    except KeyError as error:
        raise _contradiction(root, version, error) from error


def _contradiction(root: Path, version: str, error: KeyError) -> DataError:
    return DataError(f'the tables in {root / version} contradict each other: token or field {error} is referred to '
                     f'but does not exist; unpack the tables of {version} again')


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
