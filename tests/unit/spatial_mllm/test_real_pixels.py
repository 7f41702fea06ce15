"""A real posed pair: two photographs of a motorcycle with measured disparity (Middlebury 2014, in scikit-image)."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from projects.encodings import Views, attention, build_encoding
from projects.geometry.frame_sampling import DepthMaps, Frustums, Video, angles_and_distances, build_sampler
from projects.spatial_mllm.readers.clip import ClipReader
from projects.spatial_mllm.readers.geometry_file import read_geometry
from projects.spatial_mllm.readers.samples import Sample

FOCAL_PX, BASELINE_M, MIDDLE_PX, OFFSET_PX = 994.978, 0.193001, (311.193, 254.877), 31.086


@pytest.fixture(scope='module')
def pair():
    """left, right, disparity (500, 741), inf where it was not measured."""
    return data.stereo_motorcycle()


def intrinsics():
    """(2, 3, 3): the right camera's middle lies further right."""
    left = np.array([[FOCAL_PX, 0, MIDDLE_PX[0]], [0, FOCAL_PX, MIDDLE_PX[1]], [0, 0, 1]])
    return np.stack([left, left + [[0, 0, OFFSET_PX], [0, 0, 0], [0, 0, 0]]])


def world_from_cam():
    """(2, 4, 4): the left camera is the world, the right one stands to its right."""
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 3] = BASELINE_M
    return poses


def depth_of(disparity):
    """Metres; 0 where nothing was measured."""
    return np.where(np.isfinite(disparity), FOCAL_PX * BASELINE_M / (disparity.astype(np.float64) + OFFSET_PX), 0.0)


def seen_by_right(points):
    """Pixels of world points in the right image."""
    local = points @ np.linalg.inv(world_from_cam()[1])[:3, :3].T + np.linalg.inv(world_from_cam()[1])[:3, 3]
    image = local @ intrinsics()[1].T
    return image[:, :2] / image[:, 2:]


def test_unprojected_pixels_are_found_again_in_the_other_photograph(pair):
    left, right, disparity = pair
    maps = DepthMaps(depth_of(disparity)[None], intrinsics()[0], world_from_cam()[:1])
    points = maps.points(np.array([0]))[0]
    row, column = np.nonzero(np.isfinite(points).all(-1))
    pixels = seen_by_right(points[row, column])
    np.testing.assert_allclose(pixels, np.stack([column - disparity[row, column], row], axis=1), atol=1e-6)
    inside = np.flatnonzero((pixels[:, 0] >= 0) & (pixels[:, 0] <= 740))[::29]
    mine = left[row[inside], column[inside]].astype(float)
    sampled = cv2.remap(right, *pixels[inside].astype(np.float32).T.reshape(2, -1, 1), cv2.INTER_LINEAR)[:, 0].astype(float)
    wrong = right[row[inside], column[inside]].astype(float)
    assert np.median(abs(mine - sampled).mean(1)) < 4 < 16 < np.median(abs(mine - wrong).mean(1))
    assert 1.9 < points[row, column, 2].min() < 2.3 and 4.5 < points[row, column, 2].max() < 5.2


def test_overlap_of_the_pair_and_of_a_camera_that_looks_away():
    poses = np.concatenate([world_from_cam(), np.eye(4)[None]])
    poses[2, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    sets = Frustums(3, 0.2, poses, np.concatenate([intrinsics(), intrinsics()[:1]]), (500, 741), 4.0)(np.arange(3))
    near, away = sets.overlap(0, np.array([1, 2]))
    assert near > 0.75 and away < 0.1
    angle, distance = angles_and_distances(poses[:1], poses)
    np.testing.assert_allclose(np.ravel(angle), [0, 0, np.pi / 2], atol=1e-5)
    np.testing.assert_allclose(np.ravel(distance), [0, BASELINE_M, 0])


def test_what_samplers_report_of_the_pair(pair):
    depth = depth_of(pair[2])[::4, ::4]
    small = intrinsics()[0] * [[0.25], [0.25], [1]]
    poses = np.concatenate([world_from_cam(), world_from_cam()])
    video = Video(4, 'pair', np.arange(4.0), poses, DepthMaps(np.tile(depth, (4, 1, 1)), small, poses, voxel_m=0.1))
    chosen, report = build_sampler(dict(type='mergeaware_uniform', num_frames=2))(video)
    assert report['returned'] == 2 and report['coverage'] > 0.5
    chosen, report = build_sampler(dict(type='sa', num_frames=4))(video)
    assert chosen.tolist() == [0, 1] and report['coverage'] == 1  # the third and the fourth see nothing new


def write_pair(folder, pair):
    frames = folder / 'motorcycle'
    frames.mkdir()
    for number, image in enumerate(pair[:2]):
        cv2.imwrite(str(frames / f'{number}.png'), image[..., ::-1])
    np.savez(folder / 'motorcycle.npz', world_from_cam=world_from_cam(), intrinsics=intrinsics(), image_hw=np.array([500, 741]))
    return Sample('0', 'What is this?', 'a motorcycle', frames, folder / 'motorcycle.npz', {}, 'pair.json: row 1')


def test_the_pair_as_a_clip(pair, tmp_path):
    clip = ClipReader(dict(type='uniform', num_frames=2), needs=('world_from_cam', 'intrinsics'))(write_pair(tmp_path, pair))
    np.testing.assert_array_equal(clip.frames, np.stack(pair[:2]))
    np.testing.assert_array_equal(clip.geometry.intrinsics, intrinsics())
    assert clip.geometry.cam_from_world[1, 0, 3] == -BASELINE_M


def tokens_of(pair):
    """(1, 1, 2 x 5 x 7, 16) greys of a grid of patches, and views of them; K counts from the corner."""
    greys = np.stack([cv2.resize(image.mean(-1), (28, 20), interpolation=cv2.INTER_AREA) for image in pair[:2]])
    patches = greys.reshape(2, 5, 4, 7, 4).transpose(0, 1, 3, 2, 4).reshape(1, 1, 70, 16)
    return torch.tensor((patches - patches.mean()) / patches.std())


def views_of(poses):
    corner = intrinsics() + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return Views(torch.tensor(np.linalg.inv(poses))[None], torch.tensor(corner)[None], (500, 741), grid=(5, 7))


@pytest.mark.parametrize('kind', ['PRoPE', 'GTA'])
def test_pose_encodings_of_the_pair_know_the_baseline_and_no_world(pair, tmp_path, kind):
    tokens = tokens_of(pair)
    encoding = build_encoding(dict(type=kind))
    poses = read_geometry(write_pair(tmp_path, pair).geometry, 2).world_from_cam
    here = attention(tokens, tokens, tokens, encoding, views_of(poses), views_of(poses))
    moved = np.array([[0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 1], [0, 0, 0, 1.0]]) @ poses
    there = attention(tokens, tokens, tokens, encoding, views_of(moved), views_of(moved))
    torch.testing.assert_close(here, there, atol=1e-6, rtol=1e-6)
    wide = poses.copy()
    wide[1, 0, 3] *= 20
    assert (attention(tokens, tokens, tokens, encoding, views_of(wide), views_of(wide)) - here).abs().max() > 1e-3
