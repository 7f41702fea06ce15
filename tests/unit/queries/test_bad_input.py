"""What does not fit a query head is refused by the name of its setting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from projects.memfusion.data.clip_preprocessor import ClipDataPreprocessor
from projects.memfusion.detectors.slot_checks import check_readers
from projects.memfusion.memory import FrameRing, QueryMemory, StackFusion
from projects.memfusion.queries import CMTHead, QueryHead, StreamPETR
from projects.memfusion.queries.assignment import Assigner
from projects.memfusion.queries.boxes import DecodeSettings
from projects.memfusion.queries.image_tokens import level_at
from projects.memfusion.queries.petrv2_head import PETRv2
from projects.memfusion.queries.sparsebev_head import SparseBEVHead
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.run_checks import check_values
from projects.memfusion.runtime.run_checks.signatures import arguments_of
from projects.memfusion.structures import FrameMeta, Readout, SceneFeatures

QUERY = Path(__file__).resolve().parents[3] / 'configs' / 'query'
CONFIGS = {head.type: head for head in (Config.fromfile(path).model.pts_bbox_head
                                        for path in QUERY.glob('*_r18_pillar04_second_secfpn_tiny-synthetic.py'))}
RANGE = [-8.0, -8.0, -5.0, 8.0, 8.0, 3.0]


def test_levels_that_there_are_not_or_of_another_width():
    levels = (torch.zeros(1, 2, 8, 4, 4), torch.zeros(1, 2, 6, 2, 2))
    assert level_at(levels, -1, 6, 'head') is levels[1]
    with pytest.raises(ValueError, match=r'head.level=2, but img_neck gives 2 levels'):
        level_at(levels, 2, 8, 'head')
    with pytest.raises(ValueError, match=r'head.level=0, but img_neck gives 0 levels'):
        level_at(None, 0, 8, 'head')
    with pytest.raises(ValueError, match=r'head is made for 8 channels, but image level 1 has 6: .*out_channels'):
        level_at(levels, 1, 8, 'head')


def test_a_bev_of_another_width():
    small = dict(dim=16, num_layers=1, num_heads=2, ffn_dim=16)
    heads = (PETRv2(2, RANGE, 4, bev=dict(in_channels=6), transformer=small),
             SparseBEVHead(2, RANGE, 4, inputs=dict(num_frames=0, bev_channels=6), transformer=small))
    for head in heads:
        with pytest.raises(ValueError, match='pts_bbox_head is made for a BEV of 6 channels, but it has 5'):
            head(SceneFeatures(bev=torch.zeros(1, 5, 4, 4)), Readout(), None)


@pytest.mark.parametrize('memory', [FrameRing(RANGE), QueryMemory(RANGE), StackFusion(6, RANGE)])
def test_a_memory_that_no_head_reads(memory):
    """Each memory beside heads that read it, and beside those that do not."""
    small = dict(dim=16, num_layers=1, num_heads=2, ffn_dim=16)
    images = dict(channels=6)
    heads = dict(
        bev=[SparseBEVHead(2, RANGE, 4, dict(num_frames=0, bev_channels=6), small), CMTHead(2, RANGE, dict(bev_channels=6))],
        past=[PETRv2(2, RANGE, 4, {**images, 'num_frames': 2}, None, small),
              SparseBEVHead(2, RANGE, 4, dict(num_frames=2), small)],
        queries=[StreamPETR(2, RANGE, dict(num_learned=4, num_propagated=2), small, dict(in_channels=6))],
        none=[PETRv2(2, RANGE, 4, {**images, 'num_frames': 1}, None, small),
              SparseBEVHead(2, RANGE, 4, dict(num_frames=1), small),
              StreamPETR(2, RANGE, dict(num_learned=4, num_propagated=0), small, dict(in_channels=6)),
              CMTHead(2, RANGE, dict(img_channels=6)), None])
    for part, one in ((part, head) for part, group in heads.items() for head in group):
        if part == memory.hands_on:
            check_readers(memory, one, [])
        else:
            with pytest.raises(ValueError, match=rf'temporal \({type(memory).__name__}\) remembers for nobody.*temporal=None'):
                check_readers(memory, one, [])
        check_readers(None, one, [])


def test_no_query_and_half_a_range():
    with pytest.raises(ValueError, match='at least one query, got 0: set num_queries'):
        PETRv2(2, RANGE, 0, bev=dict(in_channels=6))
    with pytest.raises(ValueError, match=r'post_center_range must be x, y, z low and then high, got \[1, 2, 3\]'):
        DecodeSettings([1, 2, 3])


def test_a_frame_without_a_pose():
    known = dict(sample_token='a-0', scene_token='a', frame_index=0, is_scene_start=True, is_scene_end=False, timestamp_s=0.0,
                 global_from_lidar=np.eye(4), bev_aug=np.eye(4), is_keyframe=True, frame_valid=True)
    assert FrameMeta.from_metainfo(known).sample_token == 'a-0'
    with pytest.raises(ValueError, match=r'frame a-0 has no pose: its global_from_lidar must be a \(4, 4\) matrix, got None'):
        FrameMeta.from_metainfo({**known, 'global_from_lidar': None})
    del known['global_from_lidar']
    with pytest.raises(KeyError, match='global_from_lidar'):
        FrameMeta.from_metainfo(known)


HEADS = {name: kind for name, kind in MODELS.module_dict.items() if isinstance(kind, type) and issubclass(kind, QueryHead)
         and kind.__module__.startswith('projects.')}


@pytest.mark.parametrize('name', HEADS)
def test_every_setting_that_is_a_dict_names_what_it_does_not_know(name):
    """In the constructor, and before a run is built."""
    head, arguments = HEADS[name], arguments_of(HEADS[name])[0]
    parts = {part for part, argument in arguments.items() if 'dict' in str(argument.hint) and part != 'init_cfg'}
    assert {'loss_cfg', 'decode_cfg', 'denoising'} < parts <= set(head.typed_parts)
    for part in parts:
        with pytest.raises(ValueError, match=rf"model.pts_bbox_head.{part}: no setting 'wdith'; it takes \["):
            head.read(part, dict(wdith=1))
        with pytest.raises(UserError, match=rf'model.pts_bbox_head.{part}.wdith=1: .* has no such setting'):
            check_values(dict(model=dict(pts_bbox_head={'type': name, part: dict(wdith=1)})))
    config = CONFIGS[name]
    for part in parts - {'box_code'}:
        with pytest.raises(ValueError, match=f"model.pts_bbox_head.{part}: no setting 'wdith'"):
            MODELS.build({**config, 'point_cloud_range': RANGE, part: {**(config.get(part) or {}), 'wdith': 1}})


@pytest.mark.parametrize('head, settings, told', [
    (PETRv2, dict(bev=dict(stride=2)), r"pts_bbox_head.bev: there is no 'in_channels'"),
    (PETRv2, dict(bev=dict(in_channels=4, stride=0)), r"pts_bbox_head.bev={.*}: stride must be at least 1, got 0"),
    (PETRv2, dict(images=dict(depths=dict(kinds='lid'))), r"images={.*}: depths: no setting 'kinds'; it takes"),
    (PETRv2, dict(images=dict(depths=dict(num=0))), 'images=.*num must be at least 1'),
    (StreamPETR, dict(image_tokens=dict(in_channels=4, depths='log')), 'image_tokens={.*depths.kind must be one of lid'),
    (StreamPETR, dict(bev_tokens=dict(in_channels=4), transformer=dict(dim=10)), r'num_heads=8 must divide dim=10'),
    (SparseBEVHead, dict(denoising=dict(label_noise=2)), r'denoising={.*}: label_noise must be in 0..1, got 2'),
])
def test_settings_that_do_not_fit_are_named(head, settings, told):
    with pytest.raises(ValueError, match=told):
        head(2, RANGE, **settings)


def test_truth_that_cannot_be_matched():
    def frame(change=None, label=1):
        boxes = torch.tensor([[0., 0, 0, 2, 1, 1, 0, torch.nan, torch.nan]] * 2)
        boxes[1, :3] = torch.tensor(change or [0.0, 0, 0])
        boxes[1, 3:6] = torch.tensor([2.0, 1, 1] if change is None else change)
        truth = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([0, label]))
        return dict(inputs={}, data_samples=Det3DDataSample(metainfo=dict(sample_token='a-7'), gt_instances_3d=truth))

    preprocessor = ClipDataPreprocessor()
    bad = [(frame([2.0, 0, 1]), r'sample a-7: box 1 .* = \[2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 0.0\]: numbers must be finite'),
           (frame([2.0, torch.nan, 1]), r'sample a-7: box 1 .*nan'), (frame(label=-1), 'label -1.*ObjectNameFilter'),
           (frame(label=3), r'box 1 .* label 3, but .* 3 classes, 0 to 2')]
    for sample, told in bad:
        preprocessor.num_classes = None
        preprocessor(pseudo_collate([[sample]]), training=True)  # heads that match nothing cope
        preprocessor.num_classes = 3
        preprocessor(pseudo_collate([[sample]]), training=False)
        with pytest.raises(ValueError, match=told):
            preprocessor(pseudo_collate([[sample]]), training=True)
    preprocessor(pseudo_collate([[frame()]]), training=True)


def test_outputs_that_have_diverged():
    matcher = Assigner(dict(weight=2.0), dict(weight=0.25))
    said, truth, labels = torch.zeros(1, 1, 3, 10), torch.zeros(1, 10), torch.zeros(1, dtype=torch.long)
    said[0, 0, 1, 2] = torch.nan
    with pytest.raises(ValueError, match='NaN or infinite.*training has diverged.*lr'):
        matcher.match(torch.zeros(1, 1, 3, 2), said, [truth], [labels])
    assert (matcher.match(torch.zeros(1, 1, 3, 2), said, [truth[:0]], [labels[:0]]) == -1).all()
