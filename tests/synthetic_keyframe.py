"""One synthetic keyframe in the form of nuScenes' own: a folder with an mmdet3d v1.1 info, six images and the LiDAR points.

It stands beside the real keyframe, which cannot be part of the project: the same tests run on both.
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

from projects.memfusion.data.nuscenes_infos import create_infos
from projects.synthetic_nuscenes.generate import generate_dataset
from projects.synthetic_nuscenes.settings import make_settings

INFO_KEYS = ('sample_idx', 'token', 'timestamp', 'ego2global', 'images', 'lidar_points', 'instances', 'cam_instances')
IMAGE_KEYS = ('img_path', 'cam2img', 'cam2ego', 'sample_data_token', 'timestamp', 'lidar2cam')
LIDAR_KEYS = ('num_pts_feats', 'lidar_path', 'lidar2ego')
INSTANCE_KEYS = ('bbox_label', 'bbox_3d', 'bbox_3d_isvalid', 'bbox_label_3d', 'num_lidar_pts', 'num_radar_pts', 'velocity')
"""What mmdet3d writes into the info of its one-keyframe demo; ours has more (sizes, sweeps, sequence fields)."""


def make_synthetic_keyframe(world: Path, folder: Path) -> None:
    """Makes a world of one scene with nuScenes' image size and LiDAR density, and from it the folder of a keyframe.

    As in the real keyframe, one instance is of no known class (-1) and one has an unknown velocity (NaN).
    """
    settings = make_settings('nano', scene_names=('scene-0061',), keyframes=2, azimuth_steps=1084, image_wh_px=(1600, 900))
    generate_dataset(world, settings, workers=1)
    create_infos(world, 'v1.0-mini', world, 'nuscenes', 0, 1)
    content = pickle.loads((world / 'nuscenes_infos_train.pkl').read_bytes())
    info = _only(content['data_list'][0], INFO_KEYS)
    info['images'] = {name: _only(image, IMAGE_KEYS) for name, image in info['images'].items()}
    info['lidar_points'] = _only(info['lidar_points'], LIDAR_KEYS)
    info['instances'] = [_only(instance, INSTANCE_KEYS) for instance in info['instances']]
    seen = [instance for instance in info['instances'] if instance['num_lidar_pts'] > 0]
    seen[0]['velocity'] = [float('nan')] * 2
    seen[1]['bbox_label'] = seen[1]['bbox_label_3d'] = -1
    folder.mkdir()
    for channel, name in [(name, image['img_path']) for name, image in info['images'].items()] + [
            ('LIDAR_TOP', info['lidar_points']['lidar_path'])]:
        shutil.copy(world / 'samples' / channel / Path(name).name, folder)
    metainfo = {key: value for key, value in content['metainfo'].items() if not key.startswith('memfusion')}
    (folder / 'keyframe.pkl').write_bytes(pickle.dumps(dict(metainfo=metainfo, data_list=[info]), protocol=4))


def _only(record: dict, keys: tuple[str, ...]) -> dict:
    return {key: record[key] for key in keys}
