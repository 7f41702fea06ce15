"""Stage data: are the sensor files of the tables there? In: nuScenes' tables, a folder. Out: scenes that have all."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import print_log

from .errors import DataError
from .nuscenes_tables import Record
from .scene_splits import names_of
from .sensor_channels import SensorChannels

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes


class SensorFiles:
    """Tells whether sensor files exist, from one directory listing per folder (not one system call per file).

    Args:
        root: The data set's root folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str] | None] = {}

    def absent(self, filenames: Iterable[str]) -> list[str]:
        """Those of these files (relative to the root) that are not there."""
        return [name for name in filenames
                if not self.has_folder(name) or os.path.basename(name) not in self._listing(name)]

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


def find_sensor_file(root: Path, given: str, sensor: str) -> Path:
    """The file as an info gives it, below the root, in the folder of its sensor, or beside the info file.

    Args:
        given: path, or the name alone.
        sensor: its channel.

    Raises:
        DataError: naming file and folders, where it is in none of them.
    """
    name = given.replace('\\', '/').rsplit('/', 1)[-1]
    for candidate in (root / given, *(root / part / sensor / name for part in ('samples', 'sweeps')), root / name):
        if candidate.is_file():
            return candidate
    elsewhere = sorted((root / 'samples').glob(f'*/{glob.escape(name)}'))  # in the folder of another sensor
    if elsewhere:
        return elsewhere[0]
    raise DataError(f'{name} ({sensor}) is neither in {root / "samples" / sensor} nor in {root}: unpack or copy it there')


def sweep_records(nusc: NuScenes, lidar: Record, max_sweeps: int) -> Iterator[Record]:
    """The LiDAR `sample_data` records before this one, most recent first, at most `max_sweeps`; keyframes are sweeps too."""
    for _ in range(max_sweeps):
        if not lidar['prev']:
            return
        lidar = nusc.get('sample_data', lidar['prev'])
        yield lidar


def scenes_with_all_files(nusc: NuScenes, samples: Sequence[Record], channels: SensorChannels, max_sweeps: int, *,
                          skip_missing: bool = False) -> set[str]:
    """Tokens of the scenes whose files are there: each keyframe's point cloud; sweeps and images, unless that folder was
    not downloaded at all.

    Args:
        nusc: The tables.
        samples: Keyframes to be prepared.
        channels: Their sensors.
        max_sweeps: LiDAR sweeps that are listed before each keyframe.
        skip_missing: Leave out scenes that lack files, and say which.

    Raises:
        DataError: Naming the first file that is not there and the scenes that lack files; with `skip_missing` only where
            no scene is left.
    """
    files = SensorFiles(Path(nusc.dataroot))
    needed: dict[str, dict[str, None]] = {}
    without_folder: set[str] = set()
    for sample in samples:
        scene = needed.setdefault(sample['scene_token'], {})
        lidar = nusc.get('sample_data', sample['data'][channels.lidar])
        scene[lidar['filename']] = None
        others = [record['filename'] for record in sweep_records(nusc, lidar, max_sweeps)]
        others += [nusc.get('sample_data', sample['data'][camera])['filename'] for camera in channels.cameras
                   if camera in sample['data']]
        scene.update(dict.fromkeys(name for name in others if files.has_folder(name)))
        without_folder |= {os.path.dirname(name) for name in others if not files.has_folder(name)}
    absent = {scene: missing for scene, names in needed.items() if (missing := files.absent(names))}
    if absent:
        _report_absent(nusc, needed, absent, skip_missing)
    for folder in sorted(without_folder):
        print_log(f'{os.path.join(nusc.dataroot, folder)} is not there: infos are made without checking its files',
                  'current', level=30)
    return needed.keys() - absent.keys()


def _report_absent(nusc: NuScenes, needed: dict[str, dict[str, None]], absent: dict[str, list[str]], skip: bool) -> None:
    names = [nusc.get('scene', token)['name'] for token in absent]
    first = os.path.join(nusc.dataroot, next(iter(absent.values()))[0])
    text = f'{len(absent)} of {len(needed)} scenes lack files: {names_of(names)}'
    if not skip or len(absent) == len(needed):
        remedy = '' if skip else (', or leave these scenes out with --skip-missing-scenes' if len(absent) < len(needed) else '')
        raise DataError(f'{first} is missing: the tables refer to it; {text}; unpack the file blob that holds it into '
                        f'{nusc.dataroot}{remedy}')
    counts = [f'{name} ({len(missing)} of {len(needed[token])} files)'
              for name, (token, missing) in zip(names, absent.items())]
    print_log(f'--skip-missing-scenes: {len(absent)} of {len(needed)} scenes are left out, because files are not there: '
              f'{names_of(counts, 20)}; first file: {first}', 'current', level=30)
