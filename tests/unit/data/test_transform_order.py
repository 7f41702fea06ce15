"""Image transforms in a wrong order are errors that name the transform and the mend, also outside a data set."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet3d.structures import LiDARInstance3DBoxes
from mmdet3d.structures.points import LiDARPoints

from projects.memfusion.data.transforms import (
    CalibrationNoise,
    CropImages,
    DistortImagesPhotometric,
    DropCameras,
    DropLidar,
    FlipImages,
    LoadImageLabels,
    LoadMultiViewImages,
    MaskImageGrid,
    PackClipFrame,
    ProjectImageBoxes,
    ProjectLidarsegLabels,
    ReplaceImages,
    ResizeImages,
    RotateImages,
    UndistortImages,
)
from projects.memfusion.structures.calibration import Calibration

from .multiview import LOOKS_ALONG_Y, frame, nano_frames, rig

HW = (90, 160)
NEED_IMAGES = [
    CalibrationNoise(), CropImages((4, 4)), DistortImagesPhotometric(), DropCameras(1.0), FlipImages(),
    LoadImageLabels(['car']), MaskImageGrid(), ProjectImageBoxes(), ProjectLidarsegLabels(['car'], 'no/folder'),
    ReplaceImages('blank'), ResizeImages(), RotateImages(), UndistortImages()]
RADTAN = dict(model='radtan', coefficients=[-0.25, 0.05, 0.001, -0.0005])


@pytest.fixture
def nano(nano_infos_root):
    return nano_frames(nano_infos_root)


def loaded(hw=HW, **more):
    return frame([np.full((*hw, 3), 255, np.uint8)], rig(hw), points=LiDARPoints(torch.zeros(3, 5), points_dim=5), **more)


def name_of(transform):
    return type(transform).__name__


@pytest.mark.parametrize('transform', NEED_IMAGES, ids=name_of)
def test_before_the_images_are_loaded(transform):
    with pytest.raises(ValueError, match=f'{name_of(transform)} needs the .*put LoadMultiViewImages before it'):
        Compose([transform])(dict(sample_token='s0', images={}, points=LiDARPoints(torch.zeros(3, 5), points_dim=5)))


@pytest.mark.parametrize('transform', [*NEED_IMAGES, DropLidar(1.0)], ids=name_of)
def test_after_the_frame_is_packed(transform):
    with pytest.raises(ValueError, match=f'{name_of(transform)} .*before PackClipFrame'):
        Compose([PackClipFrame(keys=('points',)), transform])(loaded())


@pytest.mark.parametrize('before', [
    [], [CropImages((60, 160))], [CropImages((90, 100), horizontal=(0, 0))], [CropImages((60, 100)), CropImages((50, 80))],
    [FlipImages(1.0), CropImages((70, 120), vertical=(0, 0)), ResizeImages((90, 200))], [ResizeImages((300, 41))]],
    ids=['raw', 'crop', 'crop right', 'crop twice', 'flip crop resize', 'other aspect'])
def test_what_a_crop_cut_off_is_not_seen_after_a_turn(before):
    """A pixel that the turn left black is not valid, one that is all white is; only pixels that mix both may be either."""
    result = Compose([*before, RotateImages((5.4, 5.4)), CropImages((55, 70))])(loaded())
    image, calibration = result['img'][0][..., 0], result['calibration']
    v, u = (image >= 0).nonzero()
    uv_px = torch.tensor(np.stack([u, v], -1)[None, None], dtype=torch.float32)
    points = calibration.unproject(uv_px, torch.full(uv_px.shape[:-1], 10.0))
    valid = calibration.project(points[:, 0])[2][0, 0].numpy()
    inside = (u > 0) & (v > 0) & (u < image.shape[1] - 1) & (v < image.shape[0] - 1)  # the rim itself is a matter of rounding
    assert not valid[(image[v, u] == 0)].any()
    assert valid[(image[v, u] == 255) & inside].all() and valid.mean() > 0.3


def test_an_image_is_turned_once():
    with pytest.raises(ValueError, match='CAM_0: its image was turned before'):
        Compose([RotateImages((2, 2)), CropImages((60, 100)), RotateImages((5, 5))])(loaded())



@pytest.mark.parametrize('before', [[ResizeImages(width=80)], [FlipImages(1.0)], [CropImages((60, 100))]],
                         ids=['resize', 'flip', 'crop'])
def test_raw_images_only(before, nano, nano_infos_root):
    bent = Calibration.from_info(dict(CAM_0=dict(
        cam2img=rig(HW).img_from_cam[0, 0, :3, :3].tolist(), lidar2cam=LOOKS_ALONG_Y, height=HW[0], width=HW[1],
        distortion=RADTAN)))
    with pytest.raises(ValueError, match='UndistortImages must come right after LoadMultiViewImages.*CAM_0'):
        Compose([*before, UndistortImages()])({**loaded(), 'calibration': bent})
    Compose([*before, UndistortImages()])(loaded())  # a pinhole has nothing to undo
    other = ReplaceImages('other_scene', ann_file=str(nano_infos_root / 'nuscenes_infos_train.pkl'))
    with pytest.raises(ValueError, match="ReplaceImages.*other_scene.* must come right after LoadMultiViewImages.*CAM_FRONT"):
        Compose([LoadMultiViewImages(), *before, other])(nano())
    Compose([*before, ReplaceImages('blank')])(loaded())


def test_undistorted_images_are_not_replaced_by_bent_ones(nano, nano_infos_root):
    other = ReplaceImages('other_scene', ann_file=str(nano_infos_root / 'nuscenes_infos_train.pkl'))
    results = nano()
    for image in results['images'].values():
        image['distortion'] = RADTAN
    load = LoadMultiViewImages()
    assert not np.array_equal(other(load(copy.deepcopy(results)))['img'][0], load(copy.deepcopy(results))['img'][0])
    with pytest.raises(ValueError, match='must come before UndistortImages.*CAM_'):
        Compose([load, UndistortImages(), other])(results)


def test_loaded_twice(nano):
    results = nano()
    with pytest.raises(ValueError, match=f'{results["sample_token"]}: LoadMultiViewImages comes twice'):
        Compose([LoadMultiViewImages(), FlipImages(1.0), LoadMultiViewImages()])(results)


@pytest.mark.parametrize('key', ['img', 'calibration'])
def test_packing_needs_images_and_calibration_together(key):
    data = loaded()
    del data[key]
    with pytest.raises(ValueError, match=f"sample s0: PackClipFrame finds no '{key}'.*LoadMultiViewImages"):
        PackClipFrame(keys=('points',))(data)


def test_boxes_that_were_filtered_are_missed():
    boxes = LiDARInstance3DBoxes(torch.tensor([[0.0, 20 + 30 * i, -1, 4, 2, 1.5, 0, 0, 0] for i in range(3)]), box_dim=9)
    annotated = dict(gt_bboxes_3d=boxes, gt_labels_3d=np.array([0, 1, -1]))
    results = loaded(**annotated, ann_info=annotated)
    assert len(ProjectImageBoxes()(copy.deepcopy(results))['img_labels'][0].labels) == 2
    by_name = {**results, 'gt_bboxes_3d': boxes[:2], 'gt_labels_3d': np.array([0, 1])}  # ObjectNameFilter
    assert len(ProjectImageBoxes()(by_name)['img_labels'][0].labels) == 2
    by_range = {**results, 'gt_bboxes_3d': boxes[[0, 2]], 'gt_labels_3d': np.array([0, -1])}
    with pytest.raises(ValueError, match='ProjectImageBoxes must come before ObjectRangeFilter.*1 of 2 boxes'):
        ProjectImageBoxes()(by_range)
