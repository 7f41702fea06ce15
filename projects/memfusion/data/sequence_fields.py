"""Stage data: adds to mmdet3d v1.1 infos what sequences and calibration need; poses are float64 and global.

In: infos and nuScenes' tables (the devkit's, or the JSON files alone); out: the same infos with the extra keys
    info            scene_token, scene_name, frame_index, num_frames, prev_sample_token, next_sample_token,
                    global_from_lidar (4x4, at the LiDAR stamp)
    lidar_points    sample_data_token, timestamp (s), num_bytes (size of the file)
    lidar_sweeps[i] global_from_lidar (4x4, at the sweep's own stamp), lidar_points.num_bytes
    images[cam]     ego2global (4x4, at the camera's own stamp), height, width, and distortion(model, coefficients)
                    where calibrated_sensor has it
    instances[i]    instance_token, attribute ('' where there is none)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from mmengine.logging import print_log

from projects.common.safe_pickle import DamagedFileError, UnsafeFileError, load_pickle

from .errors import DataError
from .nuscenes_tables import Record, read_table
from .poses import Pose, record_matrix
from .sensor_channels import LIDAR_TOP, pick_lidar

INFO_VERSION = '1.1'
MEMFUSION_INFO_VERSION = '1.0'
REMEDY = 'run: python tools/create_data.py nuscenes --root-path DATA_ROOT --version VERSION'
_ADDED_KEYS = ('scene_token', 'scene_name', 'frame_index', 'num_frames', 'prev_sample_token', 'next_sample_token',
               'global_from_lidar')


class TableLookup(Protocol):
    """What both the devkit's `NuScenes` and `JsonTables` offer; `sample` records carry `data` and `anns`."""

    def get(self, table_name: str, token: str) -> Record:
        """The record of this table with this token."""
        ...


class JsonTables:
    """Only the tables, and of the large ones only the records, that completing these infos needs.

    Args:
        root: The data set's root folder.
        version: The table folder in it, e.g. `v1.0-mini`.
        infos: The infos to complete.

    Raises:
        DataError: For a missing or unreadable table.
    """

    def __init__(self, root: Path, version: str, infos: Sequence[Mapping[str, Any]]) -> None:
        self._folder = root / version
        self._tables: dict[str, dict[str, Record]] = {}
        sample_tokens = {info['token'] for info in infos}
        tokens = {token for info in infos for token in _sample_data_tokens(info)}
        for name in ('scene', 'sample', 'sensor', 'calibrated_sensor'):
            self._tables[name] = {record['token']: record for record in read_table(root, version, name)}
        channels = {record['token']: self.get('sensor', record['sensor_token'])
                    for record in self._tables['calibrated_sensor'].values()}
        lidars = {token: sensor['channel'] for token, sensor in channels.items() if sensor['modality'] == 'lidar'}
        self._tables['sample_data'] = sample_data = {}
        for record in read_table(root, version, 'sample_data'):
            is_key_lidar = (record['is_key_frame'] and record['calibrated_sensor_token'] in lidars
                            and record['sample_token'] in sample_tokens)
            if is_key_lidar:
                data = self.get('sample', record['sample_token']).setdefault('data', {})
                data[lidars[record['calibrated_sensor_token']]] = record['token']
            if is_key_lidar or record['token'] in tokens:
                sample_data[record['token']] = record
        poses = {record['ego_pose_token'] for record in sample_data.values()}
        self._tables['ego_pose'] = {record['token']: record for record in read_table(root, version, 'ego_pose')
                                    if record['token'] in poses}
        if any(info.get('instances') for info in infos):
            self._add_annotations(root, version, sample_tokens)

    def _add_annotations(self, root: Path, version: str, sample_tokens: set[str]) -> None:
        self._tables['attribute'] = {record['token']: record for record in read_table(root, version, 'attribute')}
        self._tables['sample_annotation'] = annotations = {}
        for record in read_table(root, version, 'sample_annotation'):
            if record['sample_token'] in sample_tokens:
                annotations[record['token']] = record
                self.get('sample', record['sample_token']).setdefault('anns', []).append(record['token'])

    def get(self, table_name: str, token: str) -> Record:
        """The record of this table with this token; `DataError` naming both where there is none."""
        record = self._tables[table_name].get(token)
        if record is None:
            raise DataError(f'{self._folder / table_name}.json has no record with token {token!r}: the info file was '
                            f'made from other tables; {REMEDY}')
        return record


def complete_infos(infos: Sequence[dict[str, Any]], root: str | Path, version: str) -> None:
    """Adds the extra keys, in place, to infos that mmdet3d itself made.

    Args:
        infos: The `data_list` of a v1.1 info file; paths in it may already be absolute.
        root: The data set's root folder.
        version: The info file's `metainfo['version']`, which names the table folder.

    Raises:
        DataError: For a missing table, or a sample or sensor token that the tables do not know; it is named.
    """
    tables = JsonTables(Path(root), version, infos)
    frames = index_frames((tables.get('scene', token) for token in _scene_tokens(infos, tables)), tables)
    lidars = dict.fromkeys(channel for info in infos for channel in tables.get('sample', info['token']).get('data', ()))
    lidar = pick_lidar(list(lidars), where=f'the tables in {Path(root) / version}')
    for info in infos:
        add_sequence_fields(info, tables, frames, lidar)
        add_file_sizes(info, tables, root)


def index_frames(scenes: Iterable[Record], tables: TableLookup) -> dict[str, tuple[int, int]]:
    """`{sample_token: (frame_index, num_frames)}` of every keyframe of these scenes, in order of time from 0."""
    frames: dict[str, tuple[int, int]] = {}
    for scene in scenes:
        tokens, token = [], scene['first_sample_token']
        while token:
            tokens.append(token)
            token = tables.get('sample', token)['next']
        frames.update({token: (index, len(tokens)) for index, token in enumerate(tokens)})
    return frames


def add_sequence_fields(info: dict[str, Any], tables: TableLookup, frames: Mapping[str, tuple[int, int]],
                        lidar_channel: str = LIDAR_TOP) -> None:
    """Adds the extra keys to one info, in place.

    Args:
        info: A v1.1 info with `token`.
        tables: Where its records are.
        frames: What `index_frames` returned for the info's scene.
        lidar_channel: Of the LiDAR whose points the info has.
    """
    sample = tables.get('sample', info['token'])
    scene = tables.get('scene', sample['scene_token'])
    if info['token'] not in frames or lidar_channel not in sample.get('data', {}):
        raise DataError(f'the tables are incomplete for sample {info["token"]}: it is not in the chain of scene '
                        f'{scene["name"]} or has no {lidar_channel} keyframe; unpack the tables again')
    lidar = tables.get('sample_data', sample['data'][lidar_channel])
    frame_index, num_frames = frames[info['token']]
    info.update(scene_token=scene['token'], scene_name=scene['name'], frame_index=frame_index, num_frames=num_frames,
                prev_sample_token=sample['prev'], next_sample_token=sample['next'],
                global_from_lidar=global_from_sensor(tables, lidar).tolist())
    info['lidar_points'].update(sample_data_token=lidar['token'], timestamp=lidar['timestamp'] / 1e6)
    for sweep in info.get('lidar_sweeps', []):
        record = tables.get('sample_data', sweep['sample_data_token'])
        sweep['global_from_lidar'] = global_from_sensor(tables, record).tolist()
    for image in info.get('images', {}).values():
        _add_camera_fields(image, tables)
    _add_instance_fields(info, sample, tables)


def add_file_sizes(info: dict[str, Any], tables: TableLookup, root: str | Path) -> None:
    """Adds `num_bytes` to the keyframe's and the sweeps' `lidar_points`, in place: a file cut later is then noticed."""
    sweeps = info.get('lidar_sweeps', [])
    files = [(info['lidar_points'], info['lidar_points']['sample_data_token'])]
    for part, token in files + [(sweep['lidar_points'], sweep['sample_data_token']) for sweep in sweeps]:
        size = _file_size(os.path.join(root, tables.get('sample_data', token)['filename']))
        if size is not None:
            part['num_bytes'] = size


@lru_cache(maxsize=4096)  # neighbouring keyframes list the same sweeps
def _file_size(path: str) -> int | None:
    return os.path.getsize(path) if os.path.isfile(path) else None


def _add_camera_fields(image: dict[str, Any], tables: TableLookup) -> None:
    record = tables.get('sample_data', image['sample_data_token'])
    sensor = tables.get('calibrated_sensor', record['calibrated_sensor_token'])
    image.update(ego2global=record_matrix(tables.get('ego_pose', record['ego_pose_token'])).tolist(),
                 height=record['height'], width=record['width'])
    if sensor.get('distortion'):
        image['distortion'] = dict(model=sensor['distortion']['model'],
                                   coefficients=[float(value) for value in sensor['distortion']['coefficients']])


def _add_instance_fields(info: dict[str, Any], sample: Record, tables: TableLookup) -> None:
    instances, tokens = info.get('instances') or [], sample.get('anns', [])
    if instances and len(instances) != len(tokens):
        raise DataError(f'sample {info["token"]} has {len(instances)} instances in the info file and {len(tokens)} in '
                        f'the tables: the info file was made from other tables; {REMEDY}')
    for instance, token in zip(instances, tokens):
        annotation = tables.get('sample_annotation', token)
        names = [tables.get('attribute', attribute)['name'] for attribute in annotation['attribute_tokens'][:1]]
        instance.update(instance_token=annotation['instance_token'], attribute=names[0] if names else '')


def global_from_sensor(tables: TableLookup, sample_data: Record) -> Pose:
    """(4, 4) pose of the sensor at the stamp of this `sample_data` record, in the global frame, float64."""
    global_from_ego = record_matrix(tables.get('ego_pose', sample_data['ego_pose_token']))
    return global_from_ego @ record_matrix(tables.get('calibrated_sensor', sample_data['calibrated_sensor_token']))


def ensure_sequence_fields(data_list: list[dict[str, Any]], metainfo: Mapping[str, Any], data_root: str | Path,
                           ann_file: str | Path = 'the info file') -> list[dict[str, Any]]:
    """Returns infos that have the extra keys: as they are, or completed in place from `data_root`'s tables.

    Args:
        data_list: The infos.
        metainfo: The info file's metainfo (`info_version`, `version`, `memfusion_info_version` if it is ours).
        data_root: The data set's root folder.
        ann_file: The info file's path, for messages.

    Raises:
        DataError: If the file is of another version, or incomplete where the tables cannot complete it.
    """
    _check_versions(metainfo, ann_file)
    if all(key in info for info in data_list for key in _ADDED_KEYS):
        return data_list
    version = metainfo.get('version')
    if not version:
        raise DataError(f'{ann_file} has no sequence fields and no version in its metainfo to find the tables by; '
                        f'{REMEDY}')
    try:
        complete_infos(data_list, data_root, version)
    except DataError as error:
        remedy = '' if REMEDY in str(error) else f'; {REMEDY}'
        raise DataError(f'{ann_file} has no sequence fields and they cannot be completed from the tables: {error}'
                        f'{remedy}') from error
    print_log(f'{ann_file}: sequence fields completed from {Path(data_root) / version}; tools/create_data.py stores '
              f'them in the file', 'current')
    return data_list


def check_info_file(content: Any, ann_file: str | Path) -> None:
    """Raises `DataError` naming the file unless this is the content of an info file of a version we read."""
    if not isinstance(content, dict) or 'metainfo' not in content or 'data_list' not in content:
        raise DataError(f'{ann_file} is an info file of another version (no metainfo and data_list, as before '
                        f'mmdet3d 1.1); {REMEDY}')
    _check_versions(content['metainfo'], ann_file)


def _check_versions(metainfo: Mapping[str, Any], ann_file: str | Path) -> None:
    for key, expected, required in (('info_version', INFO_VERSION, True),
                                    ('memfusion_info_version', MEMFUSION_INFO_VERSION, False)):
        found = metainfo.get(key)
        if found != expected and (required or found is not None):
            raise DataError(f'{ann_file} is an info file of another version ({key} is {found!r}, expected '
                            f'{expected!r}); {REMEDY}')


def load_info_file(ann_file: str | Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """`(data_list, metainfo)` of a v1.1 info file.

    Raises:
        DataError: If the file is missing, unreadable, unsafe or of another version (old v1.0 lists included); it is named.
    """
    try:
        content = load_pickle(ann_file)
    except OSError as error:
        raise DataError(f'cannot read {ann_file} ({error.strerror}); {REMEDY}') from error
    except UnsafeFileError as error:
        raise DataError(str(error)) from error
    except DamagedFileError as error:
        raise DataError(f'{ann_file} is not a readable info file ({error.reason}); {REMEDY}') from error
    check_info_file(content, ann_file)
    return content['data_list'], content['metainfo']


def _sample_data_tokens(info: Mapping[str, Any]) -> Iterable[str]:
    for record in (*info.get('images', {}).values(), *info.get('lidar_sweeps', [])):
        if 'sample_data_token' not in record:
            raise DataError(f'the images or sweeps of sample {info["token"]} have no sample_data_token; {REMEDY}')
        yield record['sample_data_token']


def _scene_tokens(infos: Sequence[Mapping[str, Any]], tables: TableLookup) -> list[str]:
    return list(dict.fromkeys(tables.get('sample', info['token'])['scene_token'] for info in infos))
