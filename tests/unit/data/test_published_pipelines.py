"""The data of the published query detectors: the same pixels, the same ranges of augmentation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet3d.registry import TRANSFORMS
from mmengine.config import Config

from projects.common.build import build_from
from projects.memfusion.data import transforms  # noqa: F401 - registers them
from projects.memfusion.structures import Calibration

RAW_HW = (900, 1600)
PUBLISHED = dict(  # size and resize_lim of the published configs
    petr=((256, 704), (0.38, 0.55)), petr_320x800=((320, 800), (0.47, 0.625)), sparsebev=((256, 704), (0.38, 0.55)),
    cmt=((320, 800), (0.47, 0.625)), cmt_640x1600=((640, 1600), (0.94, 1.25)))


@pytest.fixture(scope='module')
def rig():
    matrix = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1], [0, 1, 0, 0], [0, 0, 0, 1]])
    return Calibration.from_info(dict(CAM_FRONT=dict(
        cam2img=[[1200.0, 0, 800], [0, 1200, 450], [0, 0, 1]], lidar2cam=matrix, height=RAW_HW[0], width=RAW_HW[1])))


def image_steps(pipeline):
    return [build_from(TRANSFORMS, step.to_dict()) for step in pipeline
            if step['type'] in ('ResizeImages', 'CropImages', 'FlipImages')]


def run(steps, rig):
    results = dict(img=[np.zeros((*RAW_HW, 3), np.uint8)], calibration=rig)
    for step in steps:
        results = step(results)
    return results['img'][0].shape[:2], results['calibration'].img_aug[0, 0]


@pytest.mark.parametrize('name', PUBLISHED)
def test_images_are_resized_and_cut_as_published(name, rig, repo):
    config = Config.fromfile(repo / f'configs/_base_/datasets/nus_sequence_{name}.py')
    (height, width), (low, high) = PUBLISHED[name]
    for loader in (config.val_dataloader, config.test_dataloader):
        size, img_aug = run(image_steps(loader.dataset.pipeline), rig)
        ratio = max(height / RAW_HW[0], width / RAW_HW[1])
        assert size == (height, width)
        # Pixel centres: u' = (u + 0.5) s - 0.5 minus the cut, which keeps the lower edge and the middle.
        top, left = ratio * RAW_HW[0] - height, (ratio * RAW_HW[1] - width) / 2
        expected = [[ratio, 0, 0.5 * ratio - 0.5 - left], [0, ratio, 0.5 * ratio - 0.5 - top]]
        assert torch.allclose(img_aug[:2, :3], torch.tensor(expected), atol=1e-3)
    dataset = config.train_dataloader.dataset
    dataset = dataset.get('dataset', dataset)
    steps, ratios, mirrored = image_steps(dataset.pipeline), [], 0
    np.random.seed(0)
    for _ in range(24):
        size, img_aug = run(steps, rig)
        ratios.append(abs(float(img_aug[0, 0])))
        mirrored += float(img_aug[0, 0]) < 0
        kept = (min(height, round(RAW_HW[0] * ratios[-1])), min(width, round(RAW_HW[1] * ratios[-1])))
        assert np.abs(np.subtract(size, kept)).max() <= 1
        assert float(img_aug[1, 2]) == pytest.approx(size[0] - RAW_HW[0] * ratios[-1], abs=1.0)  # the lower edge stays
    assert low - 1e-3 <= min(ratios) and max(ratios) <= high + 1e-3 and max(ratios) - min(ratios) > 0.6 * (high - low)
    assert 6 <= mirrored <= 18
    classes = next(step['classes'] for step in dataset.pipeline if step['type'] == 'ObjectNameFilter')
    assert list(classes) == config.class_names


def test_changes_of_the_scene_are_those_published(repo):
    turned = {}
    for name in PUBLISHED:
        dataset = Config.fromfile(repo / f'configs/_base_/datasets/nus_sequence_{name}.py').train_dataloader.dataset
        pipeline = dataset.get('dataset', dataset).pipeline
        kinds = [step['type'] for step in pipeline]
        assert ('DistortImagesPhotometric' in kinds) == (name == 'sparsebev')
        assert ('LoadLidarPoints' in kinds) == (name == 'cmt')
        assert ('MaskImageGrid' in kinds) == (name != 'cmt_640x1600')
        turned[name] = dict(pipeline[kinds.index('ClipBEVAugmentation')])
    assert turned.pop('cmt') == dict(type='ClipBEVAugmentation', rot_range=[-0.785, 0.785], scale_ratio_range=[0.9, 1.1],
                                     translation_std=[0.5, 0.5, 0.5])
    assert all(step['flip_ratio_bev_horizontal'] == 0 == step['flip_ratio_bev_vertical'] for step in turned.values())
