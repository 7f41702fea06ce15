"""Pipelines and arguments that cannot make clips are errors at construction, before any file is read."""

import pytest
from mmdet3d.datasets.transforms import RandomFlip3D
from mmdet3d.registry import DATASETS

from projects.memfusion.data.transforms import LoadLidarPoints
from projects.memfusion.runtime.launch import init_registry

POINTS, SWEEPS = dict(type='LoadLidarPoints'), dict(type='LoadLidarSweeps', use_dim=5)
STOCK_SWEEPS = dict(type='LoadPointsFromMultiSweeps', use_dim=5)
BOXES = dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True)
ALIGN, AUGMENT = dict(type='AlignToClipEnd'), dict(type='ClipBEVAugmentation')
RANGE = dict(type='PointsRangeFilter', point_cloud_range=[-1, -1, -1, 1, 1, 1])
PASTE = dict(type='SeededObjectSample', db_sampler=dict(
    info_path='no/such/file.pkl', data_root='', rate=1.0, prepare={}, sample_groups={}, classes=['car']))
FLIP, ROTATE = dict(type='RandomFlip3D'), dict(type='GlobalRotScaleTrans')


@pytest.fixture(scope='module', autouse=True)
def registry():
    init_registry()


def build(*pipeline, **arguments):
    return DATASETS.build({**dict(type='NuScenesSequenceDataset', data_root='', ann_file='no.pkl', lazy_init=True,
                                  modality=dict(use_lidar=True), pipeline=list(pipeline)), **arguments})


@pytest.mark.parametrize('pipeline, words', [
    ([POINTS, PASTE], 'SeededObjectSample .*GT-paste.*appear and vanish.*seq_len=1'),
    ([POINTS, dict(PASTE, type='ObjectSample')], 'ObjectSample .*GT-paste'),
    ([POINTS, FLIP], 'RandomFlip3D.*ClipBEVAugmentation'), ([POINTS, ROTATE], 'GlobalRotScaleTrans.*ClipBEVAugmentation'),
    ([POINTS, dict(type='RandomApply', transforms=[ROTATE])], 'GlobalRotScaleTrans'),
    ([POINTS, dict(type='RandomChoice', transforms=[[RANGE], [ROTATE]])], 'GlobalRotScaleTrans'),
    ([LoadLidarPoints(), RandomFlip3D()], 'RandomFlip3D'),
])
def test_transforms_that_draw_for_every_frame(pipeline, words):
    with pytest.raises(ValueError, match=words):
        build(*pipeline, seq_len=2)
    with pytest.raises(ValueError, match=words):  # a stream at sweep rate has several frames in an item
        build(*pipeline, frame_rate='sweep', test_mode=True)


def test_single_frames_may_draw_for_themselves():
    build(POINTS, SWEEPS, BOXES, ROTATE, FLIP)
    with pytest.raises(FileNotFoundError, match='no/such/file.pkl'):  # built, and looks for its own file
        build(POINTS, PASTE)


@pytest.mark.parametrize('pipeline, words', [
    ([POINTS, BOXES], 'needs AlignToClipEnd once .*0 times'),
    ([POINTS, BOXES, ALIGN, ALIGN], 'once .*2 times'),
    ([POINTS, ALIGN, BOXES], 'after LoadAnnotations3D'), ([POINTS, ALIGN, SWEEPS], 'after LoadLidarSweeps'),
    ([POINTS, BOXES, AUGMENT, ALIGN], 'before ClipBEVAugmentation'), ([POINTS, RANGE, ALIGN], 'before PointsRangeFilter'),
    ([POINTS, dict(type='PackClipFrame', keys=['points']), ALIGN], 'before PackClipFrame'),
])
def test_the_place_of_alignment(pipeline, words):
    with pytest.raises(ValueError, match=words):
        build(*pipeline, seq_len=2, align='loader')
    build(*pipeline, seq_len=2)  # inert, so its place does not matter
    build(POINTS, SWEEPS, BOXES, ALIGN, AUGMENT, RANGE, seq_len=2, align='loader')


def test_alignment_has_no_place_in_streaming():
    for frame_rate in ('keyframe', 'sweep'):
        with pytest.raises(ValueError, match="align='loader'.*streaming"):
            build(POINTS, ALIGN, align='loader', test_mode=True, frame_rate=frame_rate)
    build(POINTS, ALIGN, align='loader', test_mode=True, seq_len=2)


def test_sweep_loaders():
    for pipeline in ([POINTS], [POINTS, STOCK_SWEEPS]):
        with pytest.raises(ValueError, match='num_sweeps=3 needs a LoadLidarSweeps'):
            build(*pipeline, num_sweeps=3)
    with pytest.raises(ValueError, match="frame_rate='sweep' cannot go with LoadPointsFromMultiSweeps"):
        build(POINTS, STOCK_SWEEPS, frame_rate='sweep')
    build(POINTS, STOCK_SWEEPS)
    build(POINTS, frame_rate='sweep')


def test_points_that_were_dropped_are_not_loaded_again():
    drop = dict(type='DropLidar', prob=0.5)
    for pipeline in ([POINTS, drop, SWEEPS], [POINTS, drop, STOCK_SWEEPS], [drop, POINTS]):
        with pytest.raises(ValueError, match=f'DropLidar must come after Load.*{pipeline[-1]["type"][-6:]}'):
            build(*pipeline)
    build(POINTS, SWEEPS, drop)


@pytest.mark.parametrize('step', [
    POINTS, STOCK_SWEEPS, RANGE, dict(type='PointShuffle'), dict(type='DropLidar', prob=0.5), dict(PASTE, type='ObjectSample')])
def test_steps_that_need_points_are_refused_without_lidar(step):
    cameras = dict(modality=dict(use_lidar=False, use_camera=True))
    with pytest.raises(ValueError, match=f'pipeline has {step["type"]}, but modality.use_lidar=False.*data_prefix.pts'):
        build(BOXES, step, **cameras)
    build(BOXES, AUGMENT, **cameras)
    with pytest.raises(ValueError, match="frame_rate='sweep' cannot go with modality.use_lidar=False"):
        build(BOXES, frame_rate='sweep', **cameras)


@pytest.mark.parametrize('loader', [POINTS, SWEEPS, BOXES])
def test_augmentation_moves_all_that_is_loaded(loader):
    with pytest.raises(ValueError, match=f'ClipBEVAugmentation must come after {loader["type"]}'):
        build(AUGMENT, loader)


@pytest.mark.parametrize('name', ['seq_len', 'stride', 'frame_stride', 'num_sweeps'])
def test_counts_below_one(name):
    with pytest.raises(ValueError, match=f'{name} must be at least 1, got 0'):
        build(POINTS, SWEEPS, **{name: 0})


@pytest.mark.parametrize('name, choices', [
    ('frame_rate', "'keyframe' or 'sweep'"), ('align', "'none' or 'loader'"), ('on_bad_frame', "'error' or 'drop'")])
def test_unknown_choices(name, choices):
    with pytest.raises(ValueError, match=f"{name} must be {choices}, got 'quick'"):
        build(POINTS, **{name: 'quick'})
