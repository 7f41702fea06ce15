"""Image transforms and calibration change together: dots drawn on images are found where the calibration says.

The dots are drawn at known raw pixels, LiDAR points are put behind them by K alone, the image goes through the transform,
and the centre of brightness is compared with `Calibration.project`.
"""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose

from projects.memfusion.data.transforms import CropImages, FlipImages, ResizeImages, RotateImages, UndistortImages
from projects.memfusion.data.transforms.multiview_augmentation import MultiViewTransform
from projects.memfusion.structures.calibration import Calibration

from .multiview import LOOKS_ALONG_Y, centroids, dots, frame, points_at, rig


@pytest.fixture(scope='module')
def dotted():
    return dots()


def errors_px(dotted, transforms, seed=0):
    """Distances between the dots in the changed image and their projections, and how many dots there are."""
    image, uv_px = dotted
    calibration = rig(image.shape[:2])
    np.random.seed(seed)
    result = Compose(transforms)(frame([image], calibration))
    projected, _, valid = result['calibration'].project(points_at(uv_px, calibration))
    projected = projected[0, 0].double().numpy()
    # as wide as the dots have become: a narrower window would draw the centre towards its own
    scale = float(torch.linalg.det(result['calibration'].img_aug[0, 0, :2, :2]).abs().sqrt())
    found = centroids(result['img'][0], projected, radius=int(np.ceil(16 * scale)))
    seen = valid[0, 0].numpy() & ~np.isnan(found[:, 0])
    return np.linalg.norm(found - projected, axis=1)[seen], result


# 900 to 253 rows is not a ratio of 0.28 exactly; 900 to 253 and 1600 to 704 are two ratios
@pytest.mark.parametrize('resize', [
    dict(size=(253, 704)), dict(width=704), dict(width=703, scale_range=(0.9, 1.1)), dict(scale_range=(0.38, 0.55)),
    dict(size=(1300, 1999))], ids=str)
def test_resize(dotted, resize):
    error, result = errors_px(dotted, [ResizeImages(**resize)])
    assert len(error) >= 190 and error.mean() < 0.1 and error.max() < 0.5
    assert result['calibration'].img_hw[0, 0].tolist() == list(result['img'][0].shape[:2])
    if 'size' in resize:
        assert result['img'][0].shape[:2] == resize['size']


def test_a_truncated_ratio_would_be_seen(dotted):
    """The test above can fail: the nominal ratio for all axes is off by more than it allows."""
    image, uv_px = dotted
    result = ResizeImages(size=(253, 704))(frame([image], rig(image.shape[:2])))
    naive = (uv_px + 0.5) * 0.44 - 0.5
    truth = result['calibration'].project(points_at(uv_px, rig(image.shape[:2])))[0][0, 0].numpy()
    assert np.abs(naive - truth).max() > 0.5


@pytest.mark.parametrize('crop', [
    dict(size=(500, 1000)), dict(size=(500, 1000), vertical=(0, 1), horizontal=(0, 1)), dict(size=(1000, 700)),
    dict(size=(1000, 2000))], ids=str)
@pytest.mark.parametrize('seed', range(2))
def test_crop(dotted, crop, seed):
    error, result = errors_px(dotted, [CropImages(**crop)], seed)
    assert len(error) >= 50 and error.mean() < 0.1 and error.max() < 0.5
    # whole pixels: the image itself is unchanged, and what is smaller than the window is kept
    assert result['img'][0].shape[:2] == (min(crop['size'][0], 900), min(crop['size'][1], 1600))


def test_crop_places(dotted):
    image = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10, 1).repeat(3, axis=2)
    for places, corner in (({}, image[4, 3]), (dict(vertical=(0, 0), horizontal=(1, 1)), image[0, 6])):
        result = CropImages(size=(2, 4), **places)(frame([image], rig((6, 10))))
        assert (result['img'][0][0, 0] == corner).all()


def test_flip_is_exact(dotted):
    image, uv_px = dotted
    before = rig(image.shape[:2])
    result = FlipImages(prob=1.0)(frame([image], before))
    found = centroids(image, uv_px)
    mirrored = centroids(result['img'][0], np.stack([1599 - np.rint(uv_px[:, 0]), uv_px[:, 1]], -1))
    projected = result['calibration'].project(points_at(uv_px, before))[0][0, 0].double().numpy()
    assert np.abs(mirrored[:, 0] - (1599 - found[:, 0])).max() < 1e-9
    # centroids carry the rounding of the drawing; it must be mirrored as well
    off = (mirrored - projected) * [-1, 1] - (found - uv_px)
    assert np.abs(off).max() < 2e-3  # float32 has steps of 1.2e-4 px here
    assert torch.equal(result['calibration'].cam_from_lidar, before.cam_from_lidar)


@pytest.mark.parametrize('angle_deg', [-5.4, 5.4])
def test_rotation(dotted, angle_deg):
    error, _ = errors_px(dotted, [RotateImages((angle_deg, angle_deg))])
    assert len(error) >= 160 and error.mean() < 0.1 and error.max() < 0.3


@pytest.mark.parametrize('seed', range(4))
def test_everything_together(dotted, seed):
    error, result = errors_px(dotted, [
        ResizeImages(width=704, scale_range=(0.94, 1.2)), RotateImages(), FlipImages(),
        CropImages((256, 704), vertical=(0.5, 1), horizontal=(0, 1))], seed)
    assert len(error) >= 50 and error.mean() < 0.1 and error.max() < 0.5
    assert result['img'][0].shape == (256, 704, 3)


def test_rigs_of_mixed_sizes_agree():
    """The same view by 900 x 1600 and 450 x 800: after the resize the cameras agree, though their K do not."""
    calibration = rig((900, 1600), (450, 800))
    points = points_at(dots()[1], calibration)
    images = [np.zeros((*hw, 3), np.uint8) for hw in ((900, 1600), (450, 800))]
    raw = calibration.project(points)[0]
    assert (raw[:, 0] - raw[:, 1]).abs().max() > 300
    for resize in (ResizeImages(size=(256, 704)), ResizeImages(width=704)):
        result = CropImages((200, 600))(resize(frame(images, calibration)))
        uv_px, _, valid = result['calibration'].project(points)
        assert valid.sum() > 100 and torch.equal(valid[0, 0], valid[0, 1])
        assert ((uv_px[0, 0] - uv_px[0, 1]).abs() / 600).max() < 1e-4


def test_padding_and_uncovered_corners_are_never_valid():
    """Every pixel of the padded network image, lifted to a point: valid exactly where a white image is white."""
    calibration = rig((90, 160))
    white = np.full((90, 160, 3), 255, np.uint8)
    np.random.seed(0)
    result = Compose([RotateImages((5.4, 5.4)), CropImages((120, 150))])(frame([white], calibration))
    assert result['img'][0].shape == (90, 150, 3)
    v, u = np.mgrid[:128, :160]  # as the data preprocessor pads it
    uv_px = torch.tensor(np.stack([u, v], -1).reshape(1, 1, -1, 2), dtype=torch.float32)
    changed = result['calibration']
    points = changed.unproject(uv_px, torch.full(uv_px.shape[:-1], 10.0))
    valid = changed.project(points[:, 0])[2].reshape(128, 160).numpy()
    shown = np.zeros((128, 160), bool)
    shown[:90, :150] = result['img'][0][..., 0] > 127
    assert not valid[90:].any() and not valid[:, 150:].any()
    assert (valid != shown).mean() < 0.005 and not shown[0, 0] and 0.5 < valid.mean() < 0.7


def test_undistortion_then_resize():
    """Dots drawn through a lens: after UndistortImages a pinhole projection finds them."""
    image, uv_px = dots(sigma=3.0)
    lens = dict(model='radtan', coefficients=[-0.25, 0.05, 0.001, -0.0005, 0.0])
    info = dict(FRONT=dict(cam2img=[[1000.0, 0, 812], [0, 1000, 430], [0, 0, 1]], lidar2cam=LOOKS_ALONG_Y, height=900,
                           width=1600, distortion=lens))
    bent = Calibration.from_info(info)
    points = bent.unproject(torch.tensor(uv_px, dtype=torch.float32)[None, None],
                            torch.full((1, 1, len(uv_px)), 12.0))[:, 0]
    assert np.abs(bent.project(points)[0][0, 0].numpy() - uv_px).max() < 1e-2
    result = ResizeImages(width=1200)(UndistortImages()(frame([image], bent)))
    projected, _, valid = result['calibration'].project(points)
    projected = projected[0, 0].numpy()
    found = centroids(result['img'][0], projected)
    seen = valid[0, 0].numpy() & ~np.isnan(found[:, 0])
    error = np.linalg.norm(found - projected, axis=1)[seen]
    # a lens bends the round dots themselves, so their centres of brightness move a little
    assert seen.sum() > 120 and error.mean() < 0.1 and error.max() < 0.5
    assert result['calibration'].img_from_lidar.shape == (1, 1, 4, 4)  # a pinhole now
    with pytest.raises(ValueError, match='FRONT'):
        UndistortImages()(ResizeImages(width=800)(frame([image], bent)))


def test_same_seed_same_draw():
    images = [np.random.default_rng(n).integers(0, 255, (90, 160, 3), dtype=np.uint8) for n in range(3)]
    transforms = Compose([ResizeImages(scale_range=(0.5, 1.5)), RotateImages(), FlipImages(), CropImages(
        (50, 80), vertical=(0, 1), horizontal=(0, 1))])

    def run(seed):
        np.random.seed(seed)
        return transforms(frame(images, rig(*[(90, 160)] * 3)))

    one, same, other = run(4), run(4), run(5)
    assert all(np.array_equal(a, b) for a, b in zip(one['img'], same['img']))
    assert torch.equal(one['calibration'].img_aug, same['calibration'].img_aug)
    assert not torch.equal(one['calibration'].img_aug, other['calibration'].img_aug)
    augs = one['calibration'].img_aug[0]
    assert not torch.equal(augs[0], augs[1])  # each camera its own draw


@pytest.mark.parametrize('build', [
    lambda: ResizeImages(size=(0, 5)), lambda: ResizeImages(size=(5, 5), width=5), lambda: ResizeImages(scale_range=(0.0, 1.0)),
    lambda: ResizeImages(scale_range=(2.0, 1.0)), lambda: CropImages((0, 4)), lambda: CropImages((4, 4), vertical=(0, 1.5)),
    lambda: FlipImages(1.5), lambda: RotateImages((3, -3))])
def test_bad_arguments(build):
    with pytest.raises(ValueError, match='must|both'):
        build()


def test_transforms_need_loaded_images():
    with pytest.raises(ValueError, match='FlipImages.*LoadMultiViewImages'):
        FlipImages()({})
    assert issubclass(FlipImages, MultiViewTransform)
