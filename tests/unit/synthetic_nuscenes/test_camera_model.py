"""Lens models: against OpenCV, by hand, and in rendered pictures."""

import json

import cv2
import numpy as np
import pytest

from projects.synthetic_nuscenes.camera_model import distort, make_canvas, project
from projects.synthetic_nuscenes.generate import generate_dataset
from projects.synthetic_nuscenes.renderer import clip_near
from projects.synthetic_nuscenes.rig import CAMERAS
from projects.synthetic_nuscenes.settings import DISTORTION_COEFFICIENTS, make_settings

POINTS = np.random.default_rng(0).uniform([-3, -2, 4], [3, 2, 9], (50, 3))


def test_pinhole_by_hand():
    matrix = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    pixels, depth = project(np.array([[3.0, 4.0, 5.0]]), matrix)
    np.testing.assert_allclose(pixels, [[110.0, 120.0]])
    np.testing.assert_allclose(depth, [5.0])


def test_radtan_is_opencvs():
    matrix = CAMERAS[0].intrinsic((400, 225))
    coefficients = DISTORTION_COEFFICIENTS['radtan']
    theirs = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), matrix, np.array(coefficients))[0].reshape(-1, 2)
    np.testing.assert_allclose(project(POINTS, matrix, 'radtan', coefficients)[0], theirs, atol=1e-9)


def test_fisheye_is_opencvs():
    matrix = CAMERAS[0].intrinsic((400, 225))
    coefficients = DISTORTION_COEFFICIENTS['fisheye']
    theirs = cv2.fisheye.projectPoints(
        POINTS[:, None], np.zeros(3), np.zeros(3), matrix, np.array(coefficients)
    )[0].reshape(-1, 2)
    np.testing.assert_allclose(project(POINTS, matrix, 'fisheye', coefficients)[0], theirs, atol=1e-9)


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match='wide'):
        distort(np.zeros((1, 2)), 'wide', ())


@pytest.mark.parametrize('model', ['radtan', 'fisheye'])
@pytest.mark.parametrize('camera', [CAMERAS[0], CAMERAS[3]], ids=lambda camera: camera.channel)
def test_canvas_covers_the_lens_and_inverts_it(model, camera):
    wh_px, coefficients = (200, 112), DISTORTION_COEFFICIENTS[model]
    matrix = camera.intrinsic(wh_px)
    canvas = make_canvas(matrix, wh_px, model, coefficients)
    assert (canvas.lookup >= 0).all()
    rows, columns = np.divmod(canvas.lookup.reshape(-1), canvas.wh_px[0])
    rays = (np.stack([columns, rows], 1) - canvas.img_from_cam[:2, 2]) / canvas.img_from_cam[[0, 1], [0, 1]]
    back = distort(rays, model, coefficients) * matrix[[0, 1], [0, 1]] + matrix[:2, 2]
    pixels = np.stack(np.meshgrid(np.arange(200), np.arange(112)), -1).reshape(-1, 2)
    assert np.abs(back - pixels).max() < 1.0


def test_near_plane_cuts_a_square_in_half():
    square = np.array([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    cut = clip_near(square, 0.5)
    assert len(cut) == 4 and cut[:, 2].min() == 0.5
    assert len(clip_near(square - [0, 0, 5])) == 0


@pytest.mark.parametrize('model', ['none', 'fisheye'])
def test_distortion_is_written_only_where_there_is_any(tmp_path, model):
    settings = make_settings(
        'nano', 1, scene_names=('scene-0916',), keyframes=2, azimuth_steps=16, image_wh_px=(64, 36), distortion=model
    )
    generate_dataset(tmp_path / 'out', settings, progress=False)
    rows = json.loads((tmp_path / 'out/v1.0-mini/calibrated_sensor.json').read_text())
    marked = [row['distortion'] for row in rows if 'distortion' in row]
    if model == 'none':
        assert marked == []
    else:
        assert marked == [{'model': model, 'coefficients': list(DISTORTION_COEFFICIENTS[model])}] * 6
