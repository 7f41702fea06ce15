"""Pictures of a test run: what the detector really returns, drawn on the points of the very frame it is of."""

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.memfusion.hooks import visualization_hook
from projects.memfusion.hooks.visualization_hook import BEVVisualizationHook

LENGTHS = dict(a=4, b=2, c=3, d=4)


@pytest.fixture
def world(make_frame):
    """Frames by (scene, index), each at a place of its own in the data set, and that data set."""
    frames, infos = {}, []
    for scene, length in LENGTHS.items():
        for index in range(length):
            frame = make_frame(scene, index, length=length, points=300)
            frame['data_samples'].set_metainfo(dict(sample_idx=len(infos)))
            frames[scene, index] = frame
            infos.append(dict(sample_idx=len(infos), token=f'{scene}-{index}', scene_name=scene, frame_index=index))
    dataset = SimpleNamespace(metainfo=dict(classes=('car',)), get_data_info=infos.__getitem__)
    return frames, dataset


def between(frame, step):
    """A LiDAR reading before the keyframe `frame`: named after it, with points of its own."""
    reading = copy.deepcopy(frame)
    reading['inputs']['points'] = reading['inputs']['points'] + 0.01 * (step + 1)
    sample = reading['data_samples']
    sample.set_metainfo(dict(is_keyframe=False, is_scene_end=False, timestamp_s=sample.timestamp_s - 0.1 * (step + 1)))
    return reading


def sweeps(frames, scene, index):
    """At sweep rate: the readings since the keyframe before; padding where the scene begins."""
    frame = frames[scene, index]
    readings = [between(frame, 1), between(frame, 0)]
    if index == 0:
        for reading in readings:
            reading['inputs']['points'] = reading['inputs']['points'][:0]
            reading['data_samples'].set_metainfo(dict(frame_valid=False, is_scene_start=False))
    return [*readings, frame]


def aligned(frames, scene, index):
    """A window of 3 frames in the last one's coordinates."""
    clip = [copy.deepcopy(frames[scene, max(at, 0)]) for at in range(index - 2, index + 1)]
    for at, frame in zip(range(index - 2, index + 1), clip):
        frame['data_samples'].set_metainfo(dict(clip_aligned=True))
        if at < 0:
            frame['inputs']['points'] = frame['inputs']['points'][:0]
            frame['data_samples'].set_metainfo(dict(frame_valid=False, is_scene_start=False))
    return clip


def single(frames, scene, index):
    return [frames[scene, index]]


WINDOW = dict(mode='window', seq_len=3)
MODES = {
    'streaming': (single, {}, {}), 'rolling': (single, {}, WINDOW), 'tiled': (single, {}, dict(WINDOW, stride=3)),
    '10 Hz': (sweeps, {}, {}), 'loader': (aligned, dict(align='loader'), WINDOW),
}


@pytest.mark.parametrize('slots', [1, 4])
@pytest.mark.parametrize('mode', MODES)
def test_every_frame_is_drawn_on_its_own_points(mode, slots, small_detector, world, monkeypatch):
    (frames, dataset), (clip_of, temporal, test_cfg) = world, MODES[mode]
    drawn = {}

    def draw(points, range_m, truth, predictions, names, title):
        drawn[title.split(',')[0]] = points, len(predictions)

    monkeypatch.setattr(visualization_hook, 'draw_bev', draw)
    monkeypatch.setattr(visualization_hook, 'draw_gate', lambda *args, **kwargs: None)
    monkeypatch.setattr(visualization_hook, 'write_png', lambda path, image: None)
    model = small_detector(temporal, test_cfg=test_cfg)
    run = SimpleNamespace(cfg=Config(dict(model=dict())), work_dir='unused', logger=logging.getLogger('pictures'),
                          test_dataloader=SimpleNamespace(dataset=dataset))
    hook = BEVVisualizationHook(draw=True, score_thr=0.0)
    hook.before_test_epoch(run)
    if slots == 1:
        batches = [[key] for key in frames]
    else:  # scene c begins a step later, b ends before the others
        starts = dict(a=0, b=0, c=1, d=0)
        batches = [[(scene, t - start) for scene, start in starts.items() if 0 <= t - start < LENGTHS[scene]] for t in range(4)]
    for step, keys in enumerate(batches):
        batch = pseudo_collate([copy.deepcopy(clip_of(frames, *key)) for key in keys])
        hook.after_test_iter(run, step, batch, model.test_step(batch))
    assert sorted(drawn) == [f'{scene}_{index:03d}' for scene, index in sorted(frames)]
    for (scene, index), frame in frames.items():
        points, boxes = drawn[f'{scene}_{index:03d}']
        np.testing.assert_array_equal(points, frame['inputs']['points'].numpy())
        assert boxes > 0
