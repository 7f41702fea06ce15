"""Query detectors in the comparison: what counts as found, what is said of runs, that their rows' configs fit the study."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.structures import InstanceData

from projects.memfusion.runtime.launch import init_registry
from projects.studies.compare import history, overfit, overfit_noise, rows


def truth(*boxes):
    centres, labels = zip(*boxes)
    return overfit.Truth(np.array(centres, dtype=float), np.array(labels))


def test_a_box_finds_the_nearest_truth_of_its_class_that_is_left():
    two = truth(((0, 0), 1), ((1.5, 0), 1), ((20, 0), 2))
    found = [((0.7, 0), 1), ((0.6, 0), 1), ((20, 1.9), 1), ((20, 2.1), 2)]  # the third: another class; the fourth: too far
    assert [overfit.matched(np.array([c for c, _ in found[:n]]), np.array([k for _, k in found[:n]]), two)
            for n in range(1, 5)] == [1, 2, 2, 2]
    assert overfit.matched(np.zeros((1, 2)), np.array([1]), overfit.Truth(np.zeros((0, 2)), np.zeros(0, dtype=int))) == 0


def test_truth_is_near_and_seen():
    pose = np.eye(4)
    pose[0, 3] = 100.0
    boxes = torch.tensor([[3.0, 4, -1, 1, 1, 1, 0, 0, 0], [-3, 4, -1, 1, 1, 1, 0, 0, 0], [30, 4, -1, 1, 1, 1, 0, 0, 0]])
    sample = Det3DDataSample(metainfo=dict(sample_token='s', global_from_lidar=pose))
    sample.gt_instances_3d = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), labels_3d=torch.tensor([5, 6, 7]))
    level = dict(s=[(np.array([130.0, 4, -0.5]), 4), (np.array([97.0, 4, -0.5]), 1), (np.array([103.0, 4, -0.5]), 2)])
    counted = overfit.truth_of(sample, level)
    assert counted.labels.tolist() == [5] and counted.centres.tolist() == [[3.0, 4.0]]


def test_what_was_learned_by_heart_is_said_and_what_was_not_run(tmp_path):
    curve = [dict(step=50 * i, minutes=0.5 * i, recall=0.1 * i) for i in range(10)]
    overfit.overfit_path(tmp_path, 'cmt', 'fused').write_text(json.dumps(dict(curve=curve)))
    text, = overfit.overfit_section(tmp_path)
    assert '| CMT | cameras and LiDAR | 0.90 | 450 | 4.5 | 0.00 at 0, 0.10 at 50, ' in text
    assert '| CMT | cameras alone | not run |' in text


def test_the_wrong_rig_that_costs_half_of_what_images_add_is_said(tmp_path):
    assert overfit_noise.noise_section(tmp_path) == []
    recalls = {name: [0.9] for name in overfit_noise.conditions_of(tmp_path)}
    recalls |= {'rotation 4 deg': [0.6, 0.8], 'rotation 8 deg': [0.2, 0.4], 'blank': [0.1], 'clean': [1.0]}
    overfit_noise.noise_path(tmp_path, 'petrv2', 'cameras').write_text(json.dumps(dict(recalls=recalls)))
    text, = overfit_noise.noise_section(tmp_path)
    row, = [line for line in text.splitlines() if line.startswith('| PETRv2')]
    # the mean of the draws falls from 0.7 at 4 deg to 0.3 at 8: halfway from 1.0 to the 0.1 of blank images is 0.55
    assert row.startswith('| PETRv2, cameras alone | 1.00 | 0.90 |')
    assert row.endswith('| 0.10 | 0.90 | 5.5 deg | above 200 cm |')


def test_history_is_told_by_whose_it_was(tmp_path):
    assert 'not run' in history.history_section(tmp_path)[0]
    scores = {whose: {name: value for name in history.COLUMNS.values()} | {history.COUNTS: 40}
              for whose, value in (('own', 0.5), ('other', 0.1), ('none', 0.2))}
    row, alone = history.ROWS
    said = dict(frame_steps=8, frames=2, steps=9, clips=4, first=dict.fromkeys(scores['own'], 0.3))
    for seed in (2, 0):
        part = dict(said, row=row.name, title=row.title, seed=seed, scores=scores)
        history.history_path(tmp_path, row.name, seed).write_text(json.dumps(part))
    part = dict(said, row=alone.name, title=alone.title, seed=2, scores=dict(own=scores['none']))
    history.history_path(tmp_path, alone.name, 2).write_text(json.dumps(part))
    text, = history.history_section(tmp_path)
    assert history.seeds_of(tmp_path) == [0, 2]
    lines = [(row, seed, *said) for seed in (0, 2) for said in (('own', '50.0'), ('other', '10.0'), ('none', '20.0'))]
    lines = [f'| {one.title} | {seed} | {whose} | {value} | {value} |' for one, seed, whose, value in (
        *lines, (alone, 2, 'single frames', '30.0'), (alone, 2, 'own', '20.0'))]
    assert [line[:len(start)] for line, start in zip(text.splitlines()[-8:], lines)] == lines
    assert '(40 hidden' in text and f'Not run: {alone.name}-0.' in text


def test_rows_of_history_differ_in_memory_alone(repo):
    init_registry()
    with_memory, alone = (Config.fromfile(repo / row.config) for row in history.ROWS)
    remembering, forgetful = (MODELS.build(cfg.model).pts_bbox_head for cfg in (with_memory, alone))
    assert remembering.num_propagated > 0 == forgetful.num_propagated and alone.model.temporal is None
    assert remembering.num_query >= with_memory.model.temporal.num_kept  # else the memory refuses frames without points
    shapes = [{name: value.shape for name, value in head.state_dict().items()} for head in (remembering, forgetful)]
    assert shapes[0].pop('start_points') != shapes[1].pop('start_points') and shapes[0] == shapes[1]  # one begins as the other
    assert with_memory.train_dataloader == alone.train_dataloader and with_memory.train_dataloader.dataset.keep_seen_s == 6.0


@pytest.mark.parametrize('row', [row for row in rows.ROWS if not row.writes_bev], ids=lambda row: row.name)
def test_query_rows_are_single_frames_on_the_frozen_lidar_part(repo, row):
    init_registry()
    cfg, other = Config.fromfile(repo / row.config), Config.fromfile(repo / 'configs/study/fusion_futrpp.py')
    assert cfg.train_dataloader.dataset.seq_len == 1 and cfg.model.get('temporal') is None
    assert cfg.model.train_cfg.frozen == other.model.train_cfg.frozen
    for slot in ('pts_backbone', 'pts_neck', 'img_backbone', 'img_neck', 'task_heads', 'grid'):
        assert cfg.model[slot] == other.model[slot], slot
    assert cfg.train_dataloader.dataset.pipeline == other.train_dataloader.dataset.pipeline
    head = MODELS.build(cfg.model).pts_bbox_head
    assert head.needs_levels and head.bev_channels == 96


def test_overfitting_has_its_configs(repo):
    for design in overfit.DESIGNS:
        for sensors in overfit.SENSORS:
            assert (repo / overfit.leaf_of(design, sensors)).is_file()
