"""Demo, viewer. In: a data set root, an info file or a keyframe folder. Out: the infos of one scene, in time order."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from projects.memfusion.data.nuscenes_tables import open_nuscenes, tables_agree
from projects.memfusion.data.sensor_channels import LIDAR_TOP
from projects.memfusion.data.sequence_fields import ensure_sequence_fields, index_frames, load_info_file
from projects.memfusion.runtime.errors import UserError

Info = dict[str, Any]
_SPLITS = ('val', 'train', 'test')
_SHOWN = 6
_MAX_SWEEPS = 10


@dataclass(frozen=True)
class ViewedScene:
    """One scene.

    Attributes:
        name: of the scene; of the folder where a keyframe has none.
        infos: mmdet3d v1.1 infos in time order.
        categories: names by label.
        root: where files are looked for.
        lidar: channel of the LiDAR.
    """

    name: str
    infos: Sequence[Info]
    categories: Mapping[int, str]
    root: Path
    lidar: str = LIDAR_TOP


@dataclass(frozen=True)
class ViewedInfos:
    """The infos of whole scenes, with all that is known of their file.

    Attributes:
        infos, categories, root, lidar: as ViewedScene's.
        version: of the tables that they were made from.
    """

    infos: Sequence[Info]
    categories: Mapping[int, str]
    root: Path
    lidar: str
    version: str

    @property
    def has_tables(self) -> bool:
        """Whether the tables lie beside the infos."""
        return bool(self.version) and (self.root / self.version).is_dir()


@dataclass(frozen=True)
class _Candidate:
    """A scene that is there, and how to make it."""

    name: str
    token: str
    samples: Collection[str]
    make: Callable[[], ViewedScene]


def read_scene(data: Path, scene: str | None = None, tokens: Collection[str] = ()) -> ViewedScene:
    """Finds a scene: by its name or token, and of those that have one of the sample tokens; of several the first.

    Args:
        data: a data set root with info files or with tables alone, an info file, or a folder with one keyframe.
        scene: name or token; None is any.
        tokens: of samples, such as a result file has; none is any.

    Raises:
        UserError, DataError: for what cannot be read or is not there; the message names it.
    """
    if data.is_file():
        root, files = data.parent, [data]
    elif data.is_dir():
        root, files = data, _info_files(data)
    else:
        raise UserError(f'{data} does not exist: give a data set root, an info file or a keyframe folder')
    candidates = (one for file in files for one in _in_file(file, root)) if files else _in_tables(root)
    names = []
    for candidate in candidates:
        names.append(candidate.name)
        if scene in (None, candidate.name, candidate.token) and (not tokens or not set(tokens).isdisjoint(candidate.samples)):
            return candidate.make()
    where = ', '.join(map(str, files or [root]))
    if scene is None or scene in names:
        which = f'none of the {len(names)} scenes' if scene is None else f'other scenes than {scene}'
        raise UserError(f'the results are of {which} of {where}: give the data that they were made from')
    shown = difflib.get_close_matches(scene, names, _SHOWN) or names[:_SHOWN]
    raise UserError(f'--scene {scene}: {where} has no scene of this name or token; it has {len(names)} scenes, e.g. '
                    f'{", ".join(shown)}')


def read_infos(data: Path, tokens: Collection[str]) -> ViewedInfos:
    """All keyframes of the scenes that have one of the sample tokens, in the order of their info file.

    Args:
        data: a data set root with info files, or an info file.

    Raises:
        UserError, DataError: for what cannot be read, and where samples are missing; the message names it.
    """
    files = _info_files(data) if data.is_dir() else [data]
    wanted = set(tokens)
    for file in files:
        infos, metainfo = load_info_file(file)
        if wanted.isdisjoint(info['token'] for info in infos):
            continue
        lost = sorted(wanted - {info['token'] for info in infos})
        if lost:
            raise UserError(f'{file} lacks {len(lost)} of the {len(wanted)} samples of the results, e.g. {lost[0]}: give the '
                            'info file that they were made from')
        infos = ensure_sequence_fields(infos, metainfo, file.parent, file)
        scenes = {info['scene_token'] for info in infos if info['token'] in wanted}
        categories = {label: name for name, label in metainfo.get('categories', {}).items() if label >= 0}
        return ViewedInfos([info for info in infos if info['scene_token'] in scenes], categories, file.parent,
                           metainfo.get('lidar_channel', LIDAR_TOP), metainfo.get('version', ''))
    names = ', '.join(file.name for file in files) or 'there is none'
    raise UserError(f'{data}: none of its info files ({names}) has the samples of the results: give the data that they are of')


def _info_files(root: Path) -> list[Path]:
    """Splits in the order in which people look at them; else the one info file of a keyframe."""
    files = [found for split in _SPLITS for found in sorted(root.glob(f'*_infos_{split}.pkl'))]
    return files or [found for found in sorted(root.glob('*.pkl')) if 'dbinfos' not in found.name]


def _in_file(file: Path, root: Path) -> Iterator[_Candidate]:
    infos, metainfo = load_info_file(file)
    categories = {label: name for name, label in metainfo.get('categories', {}).items() if label >= 0}
    lidar = metainfo.get('lidar_channel', LIDAR_TOP)
    if len(infos) == 1 and 'scene_token' not in infos[0] and not (root / str(metainfo.get('version'))).is_dir():
        name = root.resolve().name  # a keyframe on its own
        yield _Candidate(name, name, [infos[0]['token']], lambda: ViewedScene(name, infos, categories, root, lidar))
        return
    scenes: dict[str, list[Info]] = {}
    for info in ensure_sequence_fields(infos, metainfo, root, file):
        scenes.setdefault(info['scene_token'], []).append(info)
    for token, members in scenes.items():
        ordered = sorted(members, key=lambda info: info['frame_index'])
        make = partial(ViewedScene, ordered[0]['scene_name'], ordered, categories, root, lidar)
        yield _Candidate(ordered[0]['scene_name'], token, [info['token'] for info in ordered], make)


def _in_tables(root: Path) -> Iterator[_Candidate]:
    """Scenes that have no info file; the one that is chosen gets its infos as tools/create_data.py makes them."""
    versions = sorted(found.parent.name for found in root.glob('*/calibrated_sensor.json'))
    if not versions:
        raise UserError(f'{root} holds neither an info file (*_infos_*.pkl), nor tables (v1.0-*/*.json), nor a keyframe (.pkl '
                        'with its images and .pcd.bin)')
    tables = open_nuscenes(root, versions[0])
    samples: dict[str, list[Info]] = {}
    for sample in sorted(tables.sample, key=lambda sample: sample['timestamp']):
        samples.setdefault(sample['scene_token'], []).append(sample)
    for scene in tables.scene:
        own = samples.get(scene['token'], [])
        make = partial(_from_tables, tables, scene, own, root, versions[0])
        yield _Candidate(scene['name'], scene['token'], [sample['token'] for sample in own], make)


def _from_tables(tables: Any, scene: Info, samples: Sequence[Info], root: Path, version: str) -> ViewedScene:
    from projects.memfusion.data.nuscenes_infos import build_info, nus_categories  # slow to import, and seldom needed
    from projects.memfusion.data.sensor_channels import find_channels

    with tables_agree(root, version):
        channels, frames = find_channels(tables, samples), index_frames([scene], tables)
        infos = [build_info(tables, sample, row, frames, _MAX_SWEEPS, channels) for row, sample in enumerate(samples)]
    return ViewedScene(scene['name'], infos, dict(enumerate(nus_categories)), root, channels.lidar)
