"""Integration: our conventions are nuScenes': a synthetic keyframe, and a real one, which is not part of the project."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.ops import points_in_boxes_cpu
from mmdet3d.structures import LiDARInstance3DBoxes

from projects.demos.keyframe.input import Keyframe, read_keyframe
from projects.demos.keyframe.run import PICTURES, calibration_of, prepare_out, run_keyframe
from projects.demos.keyframe.score import box_points_error
from projects.memfusion.data.box_points_check import count_in_boxes
from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.runtime.errors import UserError, run_cli
from projects.memfusion.runtime.plain_pickle import load_plain_pickle
from projects.memfusion.visualization.image_files import read_rgb

NAMES = ['car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian',
         'traffic_cone']


@pytest.fixture(scope='module')
def keyframe(keyframe_dir: Path) -> Keyframe:
    return read_keyframe(keyframe_dir, NAMES)


@pytest.fixture(scope='module')
def points(keyframe: Keyframe) -> np.ndarray:
    return np.fromfile(keyframe.lidar_path, dtype=np.float32).reshape(-1, 5)


@pytest.fixture
def copied(keyframe_dir: Path, tmp_path: Path) -> Path:
    """A folder of links to the keyframe's files; a test replaces what it wants to break."""
    folder = tmp_path / 'keyframe'
    folder.mkdir()
    for file in keyframe_dir.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def rewrite(folder: Path, change: dict | None = None, content: object = None) -> None:
    """Replaces the info file; `change` goes into its only info."""
    path = next(folder.glob('*.pkl'))
    if content is None:
        content = pickle.loads(path.read_bytes())
        content['data_list'][0].update(change or {})
    path.unlink()
    path.write_bytes(pickle.dumps(content))


def points_error(boxes: np.ndarray, keyframe: Keyframe, points: np.ndarray) -> float:
    return box_points_error(count_in_boxes(points, boxes, from_bottom=True), keyframe.num_lidar_pts)


def test_boxes_lie_on_their_points(keyframe: Keyframe, points: np.ndarray) -> None:
    boxes = keyframe.boxes.tensor.numpy()
    assert points_error(boxes, keyframe, points) < 0.04
    # mmcv's operator, which mmdet3d cuts out its GT database with, sees the same, up to points on a border
    theirs = points_in_boxes_cpu(torch.from_numpy(points[None, :, :3].copy()), keyframe.boxes.tensor[None, :, :7])
    assert np.abs(theirs[0].sum(dim=0).numpy() - count_in_boxes(points, boxes, from_bottom=True)).sum() <= 3


@pytest.mark.parametrize('name', ['mirrored yaw', 'yaw from y', 'swapped l and w', 'gravity centre as bottom',
                                  'bottom as gravity centre', 'mirrored y', 'x and y swapped'])
def test_wrong_conventions_fail(keyframe: Keyframe, points: np.ndarray, name: str) -> None:
    boxes = keyframe.boxes.tensor.numpy().copy()
    if name == 'mirrored yaw':
        boxes[:, 6] *= -1
    elif name == 'yaw from y':
        boxes[:, 6] = np.pi / 2 - boxes[:, 6]
    elif name == 'swapped l and w':
        boxes[:, 3:5] = boxes[:, [4, 3]]
    elif name == 'gravity centre as bottom':
        boxes[:, 2] += boxes[:, 5] / 2
    elif name == 'bottom as gravity centre':
        boxes[:, 2] -= boxes[:, 5] / 2
    elif name == 'mirrored y':
        boxes[:, 1] *= -1
    else:
        boxes[:, :2] = boxes[:, [1, 0]]
    assert points_error(boxes, keyframe, points) > 0.05


def test_box_centres_project_as_nuscenes_says(keyframe: Keyframe) -> None:
    """The info's 2D centres were made by nuScenes' own chain through the global frame."""
    calibration = calibration_of(keyframe)
    centers = keyframe.boxes.gravity_center
    uv_px, depth_m, _ = calibration.project(centers[None])
    compared = 0
    for index, name in enumerate(calibration.cam_names):
        for instance in keyframe.info['cam_instances'][name]:
            off = np.abs(uv_px[0, index].numpy() - instance['center_2d']).max(axis=1)
            off[np.abs(depth_m[0, index].numpy() - instance['depth']) > 0.01] = np.inf
            assert off.min() < 0.05
            compared += 1
    assert compared > 60


def test_labels_are_read_by_name(keyframe: Keyframe, keyframe_dir: Path) -> None:
    # the info numbers classes in another order than our configs do
    categories = load_plain_pickle(next(keyframe_dir.glob('*.pkl')))['metainfo']['categories']
    names = {label: name for name, label in categories.items()}
    assert [NAMES[label] if label >= 0 else None for label in keyframe.labels] == [
        names.get(instance['bbox_label_3d']) for instance in keyframe.info['instances']]
    x = keyframe.boxes.tensor[:, 3]
    assert x[keyframe.labels == NAMES.index('truck')].max() > 7  # metres long
    assert (keyframe.labels == NAMES.index('barrier')).sum() > 15
    assert (keyframe.labels == -1).sum() == 1
    assert isinstance(keyframe.boxes, LiDARInstance3DBoxes) and torch.isfinite(keyframe.boxes.tensor).all()


def test_two_steps_of_the_tool(keyframe_dir: Path, tmp_path: Path) -> None:
    score = run_keyframe(keyframe_dir, tmp_path / 'out', steps=2)
    error, objects = (r'0\.02', 34) if keyframe_dir.name == 'keyframe' else (r'0\.03', 20)
    assert re.fullmatch(r'keyframe: recall_2m=\d\.\d\d precision=\d\.\d\d yaw_error_deg=(\d+\.\d|nan) '
                        rf'box_points_error={error} objects={objects}', score.line())
    assert score.failures() and not any('box_points' in text for text in score.failures())
    assert {path.name for path in (tmp_path / 'out').glob('*.png')} == set(PICTURES)
    assert read_rgb(tmp_path / 'out/truth_cameras.png').shape == (720, 1920, 3)
    prepare_out(tmp_path / 'out')  # a second run may replace the first one's pictures
    assert not list((tmp_path / 'out').glob('*.png'))


def test_output_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').write_text('precious')
    with pytest.raises(UserError, match='--out'):
        prepare_out(tmp_path)
    with pytest.raises(UserError, match='mine.txt'):
        prepare_out(tmp_path / 'mine.txt')
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_missing_and_broken_files_are_named(copied: Path) -> None:
    with pytest.raises(UserError, match='nowhere'):
        read_keyframe(copied / 'nowhere', NAMES)
    image = next(copied.glob('*CAM_BACK__*.jpg'))
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(UserError, match='CAM_BACK__.*missing'):
        read_keyframe(copied, NAMES)
    image.write_bytes(content[:5000])
    with pytest.raises(UserError, match='CAM_BACK__.*truncated'):
        read_keyframe(copied, NAMES)
    image.write_bytes(content)
    cloud = next(copied.glob('*.pcd.bin'))
    content = cloud.read_bytes()
    cloud.unlink()
    with pytest.raises(UserError, match='pcd.bin is missing'):
        read_keyframe(copied, NAMES)
    cloud.write_bytes(content[:1001])
    with pytest.raises(BadFrameError, match='pcd.bin is truncated'):
        run_keyframe(copied, copied.parent / 'out')
    assert not (copied.parent / 'out').exists()


def test_bad_info_files_are_named(copied: Path) -> None:
    path = next(copied.glob('*.pkl'))
    content = pickle.loads(path.read_bytes())
    shutil.copy(path, copied / 'second.pkl')
    with pytest.raises(UserError, match='second.pkl'):
        read_keyframe(copied, NAMES)
    (copied / 'second.pkl').unlink()
    for broken, word in ((dict(content, data_list=content['data_list'] * 2), '2 keyframes'), ([1, 2], 'v1.1'),
                         (dict(content, metainfo={}), 'categories')):
        rewrite(copied, content=broken)
        with pytest.raises(UserError, match=word):
            read_keyframe(copied, NAMES)
    rewrite(copied, content=dict(content, data_list=[{'images': {}}]))
    with pytest.raises(UserError, match='lidar_points'):
        read_keyframe(copied, NAMES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match='not a readable pickle'):
        read_keyframe(copied, NAMES)
    path.unlink()
    with pytest.raises(UserError, match='none'):
        read_keyframe(copied, NAMES)


def test_far_objects_only_is_an_error(copied: Path) -> None:
    instances = pickle.loads(next(copied.glob('*.pkl')).read_bytes())['data_list'][0]['instances']
    rewrite(copied, dict(instances=[max(instances, key=lambda instance: np.hypot(*instance['bbox_3d'][:2]))]))
    with pytest.raises(UserError, match='nothing to learn'):
        run_keyframe(copied, copied.parent / 'out')


def test_pickles_that_run_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / 'pwned'),)

    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(dict(data_list=[Evil()])))
    with pytest.raises(UserError, match=r'evil.pkl.*mkdir'):
        load_plain_pickle(path)
    assert not (tmp_path / 'pwned').exists()
    plain = dict(a=[1, 2.5, 'x', None, True, (3,), {4}], b=np.arange(6.0).reshape(2, 3), c=np.float32(2), d=np.bool_(True))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(plain, protocol=protocol))
        loaded = load_plain_pickle(path)
        assert loaded['a'] == plain['a'] and (loaded['b'] == plain['b']).all() and loaded['c'] == 2


def test_command_line_says_it_in_one_line(repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location('demo_keyframe', repo / 'tools/demo_keyframe.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    args = tool.parse_args([str(tmp_path / 'nowhere'), '--out', str(tmp_path / 'out')])
    with pytest.raises(SystemExit) as stopped:
        run_cli(lambda: tool.main(args))
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith('error: ') and 'nowhere is not a folder' in said and 'Traceback' not in said
