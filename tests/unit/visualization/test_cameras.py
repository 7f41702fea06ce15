"""Unit: boxes and points on camera images: near-plane cut, lens distortion, place in the mosaic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet, draw_cameras, draw_lidar_on_cameras
from projects.memfusion.visualization.box_set import EDGES
from projects.memfusion.visualization.cameras import MOSAIC, NEAR_M, box_lines
from projects.memfusion.visualization.style import TRUTH

LOOKS_ALONG_Y = [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
K = np.array([[200.0, 0, 320.0], [0, 200.0, 240.0], [0, 0, 1.0]])
RADTAN = [-0.12, 0.03, 0.0006, -0.0004, -0.002]


def calibration(distortion: dict | None = None, name: str = 'CAM_FRONT') -> Calibration:
    image = dict(cam2img=K.tolist(), lidar2cam=LOOKS_ALONG_Y, height=480, width=640)
    return Calibration.from_info({name: {**image, **({'distortion': distortion} if distortion else {})}})


def samples_in_cam(segment: np.ndarray) -> np.ndarray:
    """(2000, 3) points of a LiDAR-frame segment in the camera frame, those before the near plane."""
    points = segment[0] + np.linspace(0, 1, 2000)[:, None] * (segment[1] - segment[0])
    in_cam = np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
    return in_cam[in_cam[:, 2] > NEAR_M + 1e-3]


def distance_to_lines(uv: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """(P,) pixels from each point to the nearest of the segments (S, 2, 2)."""
    start, along = lines[None, :, 0], (lines[:, 1] - lines[:, 0])[None]
    share = ((uv[:, None] - start) * along).sum(-1) / np.maximum((along ** 2).sum(-1), 1e-12)
    nearest = start + np.clip(share, 0, 1)[..., None] * along
    return np.linalg.norm(uv[:, None] - nearest, axis=-1).min(axis=1)


def test_edges_are_cut_at_the_near_plane() -> None:
    # a truck beside the camera: from 3 m behind to 7 m ahead of it
    corners = BoxSet([[2.5, 2.0, -1.5, 10.0, 2.0, 3.0, np.pi / 2]]).corners_m[0]
    segments = corners[np.array(EDGES)]
    lines, origin = box_lines(calibration(), 'CAM_FRONT', segments)
    behind = [i for i, segment in enumerate(segments) if (segment[:, 1] < NEAR_M).all()]
    assert behind and not set(behind) & set(origin.tolist())
    assert sorted(set(origin.tolist())) == sorted(set(range(12)) - set(behind))
    for index in set(origin.tolist()):
        in_cam = samples_in_cam(segments[index])
        uv = in_cam[:, :2] / in_cam[:, 2:] * 200 + [320, 240]
        assert distance_to_lines(uv, lines[origin == index]).max() < 0.01 * np.abs(uv).max()
    # the cut ends lie on the near plane: x = 1.5 m or 3.5 m beside, 1.5 m above or below
    cut = lines[np.abs(lines[:, :, 0] - 320).max(axis=1) > 1000]
    far_end = np.abs(cut - [320, 240]).max(axis=1)
    expected = {(round(200 * x / NEAR_M), round(200 * 1.5 / NEAR_M)) for x in (1.5, 3.5)}
    assert {tuple(np.rint(end).astype(int)) for end in far_end} == expected


def test_nothing_of_a_box_behind_the_camera() -> None:
    lines, _ = box_lines(calibration(), 'CAM_FRONT', BoxSet([[0, -5.0, 0, 4, 2, 1, 0]]).corners_m[0][np.array(EDGES)])
    assert len(lines) == 0
    blank = np.full((480, 640, 3), 128, dtype=np.uint8)
    drawn = draw_cameras({'CAM_FRONT': blank}, calibration(), BoxSet([[0, -5.0, 0, 4, 2, 1, 0]]), tile_width_px=640)
    assert (drawn[100:480, 640:1280] == 128).all()


def test_edges_bend_with_the_lens() -> None:
    segments = BoxSet([[0.0, 4.0, -1.5, 4.0, 5.0, 3.0, 0.0]]).corners_m[0][np.array(EDGES)]
    lens = dict(model='radtan', coefficients=RADTAN)
    lines, origin = box_lines(calibration(lens), 'CAM_FRONT', segments)
    for index in range(12):
        in_cam = samples_in_cam(segments[index])
        uv = cv2.projectPoints(in_cam, np.zeros(3), np.zeros(3), K, np.array(RADTAN))[0][:, 0]
        assert distance_to_lines(uv, lines[origin == index]).max() < 0.5
        straight = np.stack([uv[0], uv[-1]])[None]
        if index == 2:  # the near edge along x, off the centre: it is visibly bent
            assert distance_to_lines(uv, straight).max() > 2


def test_box_is_drawn_at_its_pixels() -> None:
    # a 2 m cube whose near face is 4 m ahead: corners 50 px from the centre of the image
    blank = np.zeros((480, 640, 3), dtype=np.uint8)
    box = BoxSet([[0.0, 5.0, -1.0, 2, 2, 2, 0.0]])
    image = draw_cameras({'CAM_FRONT': blank}, calibration(), box, tile_width_px=640)
    tile = image[:480, 640:1280]

    def green(u: int, v: int) -> bool:
        return bool(np.abs(tile[v, u].astype(int) - TRUTH).sum() < 60)

    assert green(270, 215) and green(370, 215) and green(300, 190) and green(300, 290)
    assert not green(260, 215) and not green(300, 180)


def test_mosaic_order() -> None:
    images = {name: np.full((90, 160, 3), 20 * index + 20, dtype=np.uint8)
              for index, name in enumerate(name for row in MOSAIC for name in row)}
    some = {name: image for name, image in images.items() if name != 'CAM_BACK'}
    mosaic = draw_cameras(some, calibration(), tile_width_px=160)
    assert mosaic.shape == (180, 480, 3)
    centers = mosaic[[45, 135]][:, [80, 240, 400]][..., 0]
    assert centers.tolist() == [[20, 40, 60], [80, 16, 120]]  # the missing camera is background
    other = draw_cameras({'left': images['CAM_FRONT'], 'right': images['CAM_BACK']}, calibration(), tile_width_px=160)
    assert other.shape == (90, 320, 3)


def test_cameras_of_other_names_are_all_drawn_even_beside_nuscenes_own() -> None:
    names = ['CAM_FRONT', 'ROOF', 'REAR', 'LEFT']
    images = {name: np.full((90, 160, 3), 50 * (index + 1), np.uint8) for index, name in enumerate(names)}
    mosaic = draw_cameras(images, calibration(), tile_width_px=160)
    assert mosaic.shape == (180, 480, 3)
    assert mosaic[45, [80, 240, 400], 0].tolist() == [50, 100, 150] and mosaic[135, 80, 0] == 200


def test_lidar_points_near_ones_on_top() -> None:
    blank = np.zeros((480, 640, 3), dtype=np.uint8)
    points = np.array([[0.0, 5.0, 0.0], [0.0, 50.0, 0.0], [0.0, -5.0, 0.0]])
    image = draw_lidar_on_cameras({'CAM_FRONT': blank}, calibration(), points, tile_width_px=640)
    near = draw_lidar_on_cameras({'CAM_FRONT': blank}, calibration(), points[:1], tile_width_px=640)
    far = draw_lidar_on_cameras({'CAM_FRONT': blank}, calibration(), points[1:], tile_width_px=640)
    assert (image[240, 960] == near[240, 960]).all() and (near[240, 960] != far[240, 960]).any()
    # the bar tells the same: near is red at its foot, as the point is
    bar = image[:, -90:]
    assert bar[image.shape[0] - 60, 20].argmax() == near[240, 960].argmax() == 0


@pytest.mark.parametrize('label, word', [(-1, '?'), (0, 'C'), (7, '7')])
def test_initials(label: int, word: str) -> None:
    from projects.memfusion.visualization.style import initials
    assert initials(label, ['car']) == word
