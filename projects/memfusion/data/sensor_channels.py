"""Stage data: which LiDAR and which cameras the tables have. In: nuScenes' tables. Out: names of channels; no frame."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmengine.logging import print_log

from .errors import DataError
from .nuscenes_tables import CAMERAS, Record

if TYPE_CHECKING:
    from nuscenes.nuscenes import NuScenes

LIDAR_TOP = 'LIDAR_TOP'
NUSCENES_PREFIX = dict(pts='samples/LIDAR_TOP', img='', sweeps='sweeps/LIDAR_TOP')


@dataclass(frozen=True)
class SensorChannels:
    """The sensors that infos are made of.

    Attributes:
        lidar: channel of the LiDAR.
        cameras: channels of the cameras, nuScenes' own first and in mmdet3d's order, then the others in the tables' order.
        folders: folder of each channel's keyframe files, and of the LiDAR's sweeps under `sweeps`, relative to the root.
    """

    lidar: str = LIDAR_TOP
    cameras: tuple[str, ...] = CAMERAS
    folders: Mapping[str, str] = field(default_factory=dict)

    def data_prefix(self) -> dict[str, str]:
        """What `data_prefix` of a data set's config must be for these sensors."""
        prefix = dict(pts=self._folder(self.lidar), sweeps=self.folders.get('sweeps', f'sweeps/{self.lidar}'))
        return prefix | {name: self._folder(name) for name in self.cameras}

    def is_nuscenes(self) -> bool:
        """Whether the configs' own `data_prefix` and cameras fit."""
        return self.cameras == CAMERAS and self.data_prefix() == SensorChannels().data_prefix()

    def _folder(self, channel: str) -> str:
        return self.folders.get(channel, f'samples/{channel}')


def pick_lidar(channels: Sequence[str], wanted: str | None = None, where: str = 'the tables') -> str:
    """The LiDAR channel: the wanted one, else LIDAR_TOP, else the only one.

    Args:
        channels: of the LiDARs that are there.
        wanted: the user's choice.
        where: what the message calls the tables.

    Raises:
        DataError: naming the channels that are there, where none of them can be chosen.
    """
    there = ', '.join(channels) or 'none'
    if wanted is not None:
        if wanted not in channels:
            raise DataError(f'--lidar-channel {wanted}: {where} have no keyframes of a LiDAR of that name (LiDARs: {there})')
        return wanted
    if LIDAR_TOP in channels:
        return LIDAR_TOP
    if len(channels) != 1:
        what = 'no keyframes of a LiDAR' if not channels else f'several LiDARs ({there}) and none is {LIDAR_TOP}'
        remedy = ('is one in sensor.json with modality "lidar", and are its keyframes in sample_data.json? (channels with '
                  'keyframes are looked at)') if not channels else 'choose one with tools/create_data.py --lidar-channel NAME'
        raise DataError(f'{where} have {what}: {remedy}')
    return channels[0]


def find_channels(nusc: NuScenes, samples: Sequence[Record], lidar_channel: str | None = None) -> SensorChannels:
    """The LiDAR and the cameras that have keyframes; says which channels and which keyframes lack some.

    Args:
        nusc: the tables.
        samples: the keyframes that are looked at.
        lidar_channel: which LiDAR; None is LIDAR_TOP or the only one.

    Raises:
        DataError: naming the channel, for a LiDAR that is not there, a keyframe without it, and files of one channel in
            several folders (infos keep the files' names alone).
    """
    where = f'the tables in {os.path.join(nusc.dataroot, nusc.version)}'
    modality = {sensor['channel']: sensor['modality'] for sensor in nusc.sensor}
    having: dict[str, list[Record]] = {}
    for sample in samples:
        for channel in sample['data']:
            having.setdefault(channel, []).append(sample)
    lidar = pick_lidar([name for name in modality if modality[name] == 'lidar' and name in having], lidar_channel, where)
    cameras = [name for name in modality if modality[name] == 'camera']
    there = [name for name in CAMERAS if name in cameras and name in having]
    there += [name for name in cameras if name in having and name not in CAMERAS]
    empty = [name for name in cameras if name not in having]
    if empty:
        print_log(f'{where} have no keyframe images of {", ".join(empty)}: infos are made without', 'current', level=30)
    for channel in (lidar, *there):
        _report_gaps(nusc, channel, having[channel], samples, is_lidar=channel == lidar)
    return SensorChannels(lidar, tuple(there), _folders(nusc, (lidar, *there), lidar))


def _report_gaps(nusc: NuScenes, channel: str, having: Sequence[Record], samples: Sequence[Record], *,
                 is_lidar: bool) -> None:
    """A keyframe without the LiDAR cannot be used; one without a camera can, where the config allows it."""
    if len(having) == len(samples):
        return
    present = {sample['token'] for sample in having}
    lacking = [sample for sample in samples if sample['token'] not in present]
    scene = nusc.get('scene', lacking[0]['scene_token'])['name']
    text = (f'{channel}: {len(lacking)} of {len(samples)} keyframes of {nusc.version} have none (first: sample '
            f'{lacking[0]["token"]} of {scene})')
    if is_lidar:
        raise DataError(f'{text}: every keyframe needs its point cloud; take these samples out of the tables, or choose '
                        'another LiDAR with --lidar-channel')
    print_log(f"{text}: their infos have no such image; load them with LoadMultiViewImages(cam_names=[...], "
              "on_bad_image='mask')", 'current', level=30)


def _folders(nusc: NuScenes, channels: Sequence[str], lidar: str) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for record in nusc.sample_data:
        if record['channel'] in channels and (record['is_key_frame'] or record['channel'] == lidar):
            name = record['channel'] if record['is_key_frame'] else 'sweeps'
            found.setdefault(name, set()).add(os.path.dirname(record['filename']))
    for name, folders in found.items():
        if len(folders) > 1:
            what = f'the sweeps of {lidar}' if name == 'sweeps' else f'the keyframe files of {name}'
            raise DataError(f'{what} lie in several folders ({", ".join(sorted(folders)[:3])}), and infos keep the names of '
                            'files alone: put them into one folder, and change filename in sample_data.json')
    folder = {name: next(iter(folders)) for name, folders in found.items()}
    keyframes, sweeps = folder[lidar], folder.get('sweeps', '')
    if sweeps not in ('', keyframes) and ('samples' not in keyframes or 'samples' in sweeps):
        raise DataError(f'{lidar} has its keyframes in {keyframes} and its sweeps in {sweeps}: mmdet3d tells them '
                        f'apart by the word samples in the path; put them into samples/{lidar} and sweeps/{lidar}, and change '
                        'filename in sample_data.json')
    return folder
