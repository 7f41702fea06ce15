"""Colours: the photometric steps against mmdet's, and the grid's share of the image."""

from unittest import mock

import numpy as np
import pytest
from mmdet.datasets.transforms import PhotoMetricDistortion

from projects.memfusion.data.transforms import DistortImagesPhotometric, MaskImageGrid

from .multiview import frame, rig


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize('seed', range(12))
def test_photometric_distortion_equals_mmdets(seed):
    """Same draws, mmdet's own code: equal after its result is rounded and cut to uint8.

    On colours that stay positive: mmdet sends negative ones through HSV, where they have a saturation above 1.
    """
    image = np.random.default_rng(0).integers(40, 256, (40, 60, 3), dtype=np.uint8)
    ours = DistortImagesPhotometric()
    np.random.seed(seed)
    found = ours.distort(image)
    np.random.seed(seed)
    brighter, contrast_first, contrasted, saturated, hued, swapped = np.random.random(6) < 0.5
    brightness, contrast, saturation, hue = (np.random.uniform(*limits) for limits in (
        (-32, 32), (0.5, 1.5), (0.5, 1.5), (-18, 18)))
    flags = (int(contrast_first), brighter, contrasted, saturated, hued, swapped, brightness, contrast, saturation, hue,
             np.random.permutation(3))
    stock = PhotoMetricDistortion()
    with mock.patch.object(stock, '_random_flags', return_value=flags):
        expected = stock.transform(dict(img=image.copy()))['img']
    assert np.abs(found.astype(int) - np.rint(expected).clip(0, 255)).max() <= 1
    assert found.dtype == np.uint8


def test_photometric_draws_differ_by_camera_and_geometry_stays(image):
    calibration = rig((40, 60), (40, 60))
    np.random.seed(3)
    result = DistortImagesPhotometric()(frame([image, image], calibration))
    assert result['calibration'] is calibration and not np.array_equal(*result['img'])
    np.random.seed(3)
    assert np.array_equal(result['img'][1], DistortImagesPhotometric()(frame([image, image], calibration))['img'][1])


@pytest.mark.parametrize('ratio', [0.3, 0.5])
def test_grid_covers_ratio_squared(ratio):
    white = np.full((120, 200, 3), 255, np.uint8)
    mask = MaskImageGrid(prob=1.0, ratio=ratio, period_range=(0.1, 0.3), fill=(1, 2, 3))
    np.random.seed(0)
    shares = []
    for _ in range(50):
        first, second = mask(frame([white, white], rig((120, 200), (120, 200))))['img']
        assert np.array_equal(first, second)  # one grid for a frame
        covered = (first == (1, 2, 3)).all(-1)
        assert ((first == 255).all(-1) | covered).all()
        shares.append(covered.mean())
    assert abs(np.mean(shares) - ratio ** 2) < 0.02 and np.std(shares) < 0.06
    assert (white == 255).all()  # what was loaded is not written to


def test_grid_as_often_as_asked(image):
    mask = MaskImageGrid(prob=0.25, fill=(0, 0, 0))
    np.random.seed(1)
    white = np.full((20, 30, 3), 255, np.uint8)
    masked = [(mask(frame([white], rig((20, 30))))['img'][0] is not white) for _ in range(400)]
    assert abs(np.mean(masked) - 0.25) < 0.07


@pytest.mark.parametrize('build', [
    lambda: DistortImagesPhotometric(contrast_range=(2, 1)), lambda: DistortImagesPhotometric(hue_delta_deg=400),
    lambda: MaskImageGrid(prob=2), lambda: MaskImageGrid(ratio=-0.1), lambda: MaskImageGrid(period_range=(0, 1))])
def test_bad_arguments(build):
    with pytest.raises(ValueError, match='must'):
        build()
