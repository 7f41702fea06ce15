"""Shared by the generator's tests: the nano world's truth, the devkit's view of it, and a world of seconds."""

import pytest
from nuscenes.nuscenes import NuScenes

from projects.synthetic_nuscenes.settings import make_settings
from projects.synthetic_nuscenes.world import build_world


@pytest.fixture(scope='session')
def nano_world():
    return build_world('nano', 0)


@pytest.fixture(scope='session')
def nano_nusc(nano_root):
    return NuScenes(version='v1.0-mini', dataroot=str(nano_root), verbose=False)


@pytest.fixture(scope='session')
def small_settings():
    """Two scenes of two keyframes: about a second to make."""
    return make_settings(
        'nano', 3, scene_names=('scene-0103', 'scene-0916'), keyframes=2, azimuth_steps=32, image_wh_px=(64, 36)
    )


@pytest.fixture(scope='session')
def lidar_records(nano_nusc):
    """(scene name, sample, LiDAR keyframe record) of every keyframe."""
    rows = []
    for sample in nano_nusc.sample:
        name = nano_nusc.get('scene', sample['scene_token'])['name']
        rows.append((name, sample, nano_nusc.get('sample_data', sample['data']['LIDAR_TOP'])))
    return rows
