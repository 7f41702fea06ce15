"""Files of points, depth and poses: what is read of them, and what is wrong with them."""

import numpy as np
import pytest

from projects.geometry.frame_sampling import DepthMaps, Frustums, WorldPoints
from projects.sample_frames.geometry_file import SeeOptions, read_geometry

K = np.array([[4.0, 0, 2], [0, 4, 1.5], [0, 0, 1]])


@pytest.fixture
def write(tmp_path, geometry):
    """write(array=value or None): the geometry file, changed."""
    def make(**arrays):
        np.savez(tmp_path / 'walk.npz', **{name: value for name, value in {**geometry, **arrays}.items() if value is not None})
        return tmp_path / 'walk.npz'
    return make


def test_points_depth_and_frustums(write):
    depth = dict(depth=np.ones((12, 3, 4)), intrinsics=K, image_hw=np.array([3, 4]))
    video, frames = read_geometry(write(**depth), SeeOptions())
    assert isinstance(video.visible, WorldPoints) and video.num_frames == 12 and frames is None
    video, _ = read_geometry(write(**depth, world_points=None), SeeOptions())
    assert isinstance(video.visible, DepthMaps)
    video, _ = read_geometry(write(**depth), SeeOptions('frustum', range_m=2.0))
    assert isinstance(video.visible, Frustums) and video.visible.voxel_m == 0.1
    video, _ = read_geometry(write(world_points=None, tokens=np.zeros((12, 6, 2))), SeeOptions())
    assert video.visible is None and video.world_from_cam is not None


@pytest.mark.parametrize('arrays, see, message', [
    (dict(points=np.zeros(3)), 'auto', r"unknown arrays \['points'\]. Known: world_points, depth"),
    (dict(conf=np.ones((11, 1, 4))), 'auto', "arrays must have one row for each frame, got .*'conf': 11"),
    (dict(world_points=None, world_from_cam=None, intrinsics=K), 'auto', 'one row for each frame, got none that has rows'),
    (dict(conf=np.ones((12, 4))), 'auto', r'confidence must be \(12, 1, 4\), got \(12, 4\)'),
    (dict(), 'depth', r"--sees depth needs depth, intrinsics, which is not there; it has \['world_from_cam', 'world_points'\]"),
    (dict(), 'lidar', '--sees lidar needs a nuScenes scene'),
    (dict(frames=np.arange(12)[::-1]), 'auto', 'frames must be rising whole numbers from 0'),
    (dict(intrinsics=K, image_hw=np.array([3])), 'frustum', r'image_hw must be height and width, got \[3\]'),
    (dict(intrinsics=K, image_hw=np.array([3, 2])), 'frustum', r'image_hw is of 3 x 2 pixels .* middle at \[2.0, 1.5\]'),
    (dict(depth=np.ones((12, 3, 2)), intrinsics=K), 'depth', 'depth is of 3 x 2 pixels .* another size'),
    (dict(depth=np.ones((12, 3, 4)), intrinsics=K, image_hw=np.array([6, 8])), 'depth',
     r'depth is of \(3, 4\) pixels, image_hw says \[6, 8\]'),
    (dict(stamps_s=np.zeros(12)), 'auto', 'stamps must be 12 rising numbers'),
    (dict(depth=np.float64(3)), 'auto', 'depth must have one row for each frame, got a single number'),
])
def test_what_cannot_be_used_is_named(write, arrays, see, message):
    with pytest.raises(ValueError, match='walk.npz.*' + message):
        video, _ = read_geometry(write(**arrays), SeeOptions(see))
        video.visible(np.arange(12))


def test_what_is_no_npz(tmp_path):
    for content in (b'text', b'PK\x03\x04cut'):
        (tmp_path / 'a.npz').write_bytes(content)
        with pytest.raises(ValueError, match='a.npz is not an npz file of plain arrays'):
            read_geometry(tmp_path / 'a.npz', SeeOptions())


def test_a_damaged_npz_is_named(tmp_path, geometry):
    np.savez_compressed(tmp_path / 'a.npz', **geometry)
    content = bytearray((tmp_path / 'a.npz').read_bytes())
    content[70:90] = bytes(20)
    (tmp_path / 'a.npz').write_bytes(content)
    with pytest.raises(ValueError, match='a.npz is not an npz file of plain arrays'):
        read_geometry(tmp_path / 'a.npz', SeeOptions())


@pytest.mark.parametrize('settings, message', [
    (dict(voxel_m=0.0), '--voxel must be positive, got 0.0'), (dict(range_m=-1.0), '--range must be positive, got -1.0')])
def test_sizes_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        SeeOptions(**settings)
