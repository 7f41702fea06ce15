"""Unit: BEVVisualizationHook on stock and clip batches, with a data set made by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.structures import InstanceData

from projects.memfusion.hooks.visualization_hook import BEVVisualizationHook
from projects.memfusion.visualization import write_png
from projects.memfusion.visualization.image_files import read_rgb
from projects.memfusion.visualization.style import PREDICTION

LOOKS_ALONG_Y = [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
BOX = torch.tensor([[2.0, 6.0, -1.0, 4.0, 2.0, 1.5, 0.3]])


class HandMadeDataset:
    metainfo = dict(classes=['car', 'truck'])
    data_prefix = dict(img='')

    def __init__(self, root: Path, with_scene: bool = True) -> None:
        self.data_root = str(root)
        self.with_scene = with_scene
        write_png(root / 'samples/CAM_FRONT/front.png', np.zeros((48, 64, 3), dtype=np.uint8))

    def get_data_info(self, index: int) -> dict:
        camera = dict(img_path='front.png', cam2img=[[30.0, 0, 32], [0, 30.0, 24], [0, 0, 1]], lidar2cam=LOOKS_ALONG_Y)
        scene = dict(scene_name='scene-0001', frame_index=index) if self.with_scene else {}
        return dict(sample_idx=index, images=dict(CAM_FRONT=camera),
                    eval_ann_info=dict(gt_bboxes_3d=LiDARInstance3DBoxes(BOX), gt_labels_3d=np.array([0])), **scene)


def sample(index: int, score: float = 0.9) -> Det3DDataSample:
    result = Det3DDataSample(metainfo=dict(sample_idx=index))
    result.pred_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(BOX + 0.4), labels_3d=torch.tensor([1]), scores_3d=torch.tensor([score]))
    return result


def runner(dataset: HandMadeDataset, tmp_path: Path) -> SimpleNamespace:
    cfg = Config(dict(model=dict(grid=dict(point_cloud_range=[-10, -10, -5, 10, 10, 3]))))
    return SimpleNamespace(cfg=cfg, work_dir=str(tmp_path / 'work'), logger=logging.getLogger('test'),
                           test_dataloader=SimpleNamespace(dataset=dataset))


def batch(*indices: int) -> dict:
    points = [torch.rand(50, 5) * 8 for _ in indices]
    return dict(inputs=dict(points=points), data_samples=[sample(i) for i in indices])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*'))


@pytest.mark.parametrize('as_clip', [False, True])
def test_both_kinds_of_batches(tmp_path: Path, as_clip: bool) -> None:
    hook = BEVVisualizationHook(draw=True, test_out_dir=str(tmp_path / 'out'))
    data = [batch(3, 8), batch(4, 9)] if as_clip else batch(4, 9)
    hook.after_test_iter(runner(HandMadeDataset(tmp_path / 'data'), tmp_path), 0, data, [sample(i) for i in (4, 9)])
    assert names(tmp_path / 'out') == [f'scene-0001_{i:03d}_{kind}.png' for i in (4, 9) for kind in ('bev', 'cameras')]
    orange = np.abs(read_rgb(tmp_path / 'out/scene-0001_004_bev.png').astype(int) - PREDICTION).sum(axis=2) < 60
    rows, columns = np.nonzero(orange[:, 300:])  # right of the legend
    # centre of the prediction: x = 2.4, y = 6.4 -> 45 px per metre
    assert abs(columns.max() + columns.min() + 600 - 2 * 45 * 12.4) < 120 and abs(rows.mean() - 45 * 3.6) < 40


def test_low_scores_are_left_out_and_gate_is_drawn(tmp_path: Path) -> None:
    shown, hidden = (sample(0, score) for score in (0.31, 0.29))
    for index, result in enumerate((shown, hidden)):
        result.set_field(torch.rand(1, 8, 8), 'pred_occupancy')
        hook = BEVVisualizationHook(draw=True, test_out_dir=str(tmp_path / str(index)), score_thr=0.3)
        hook.after_test_iter(runner(HandMadeDataset(tmp_path / 'data'), tmp_path), 0, batch(0), [result])
        assert f'scene-0001_{0:03d}_gate.png' in names(tmp_path / str(index))
    pictures = [read_rgb(tmp_path / name / 'scene-0001_000_bev.png')[:, 300:] for name in '01']  # without the legend
    orange = [int((np.abs(image.astype(int) - PREDICTION).sum(axis=2) < 60).sum()) for image in pictures]
    assert orange[0] > 50 and orange[1] == 0


def test_off_by_default_interval_and_limit(tmp_path: Path) -> None:
    run = runner(HandMadeDataset(tmp_path / 'data', with_scene=False), tmp_path)
    BEVVisualizationHook().after_test_iter(run, 0, batch(0), [sample(0)])
    assert not (tmp_path / 'work').exists()
    hook = BEVVisualizationHook(draw=True, interval=2, max_samples=2)
    hook.before_test_epoch(run)
    for index in range(7):
        hook.after_test_iter(run, index, batch(index), [sample(index)])
    drawn = [name for name in names(tmp_path / 'work/pictures') if name.endswith('bev.png')]
    assert drawn == ['sample_00000_bev.png', 'sample_00002_bev.png']  # stock infos do not know their scene
    for bad in ('interval', 'max_samples'):
        with pytest.raises(ValueError, match=f'visualization.{bad} must be at least 1'):
            BEVVisualizationHook(**{bad: 0})


def test_a_run_says_how_much_was_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = runner(HandMadeDataset(tmp_path / 'data'), tmp_path)
    hook = BEVVisualizationHook(draw=True, test_out_dir=str(tmp_path / 'out'), interval=2)
    with caplog.at_level(logging.INFO):
        hook.before_test_epoch(run)
        hook.after_test_epoch(run)
        hook.after_test_iter(run, 0, batch(0, 1, 2), [sample(0), sample(1), sample(2)])
        hook.after_test_epoch(run)
        BEVVisualizationHook().after_test_epoch(run)
    assert [record.levelname for record in caplog.records] == ['WARNING', 'INFO']
    assert 'no picture was drawn into' in caplog.text and 'gave 0 predicted samples' in caplog.text
    assert f'2 of 3 samples were drawn into {tmp_path}/out' in caplog.text


@pytest.mark.parametrize('limit, shares', [(5, [2, 2, 1]), (1, [1, 0, 0]), (3, [1, 1, 1])])
def test_processes_share_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, shares: list[int]) -> None:
    run, module = runner(HandMadeDataset(tmp_path / 'data'), tmp_path), 'projects.memfusion.hooks.visualization_hook'
    drawn = []
    for rank in range(3):
        monkeypatch.setattr(f'{module}.get_dist_info', lambda rank=rank: (rank, 3))
        hook = BEVVisualizationHook(draw=True, max_samples=limit)
        monkeypatch.setattr(hook, '_draw_sample', lambda *args: None)
        for index in range(4):
            hook.after_test_iter(run, index, batch(index), [sample(index)])
        drawn.append(hook._num_drawn)
    assert drawn == shares


def test_what_cannot_be_paired_is_an_error(tmp_path: Path) -> None:
    run = runner(HandMadeDataset(tmp_path / 'data'), tmp_path)
    with pytest.raises(ValueError, match='a batch of 2 samples gave 4 predictions'):
        BEVVisualizationHook(draw=True).after_test_iter(run, 0, [batch(0, 1)] * 2, [sample(i) for i in (0, 0, 1, 1)])
    other = sample(1)
    other.set_metainfo(dict(sample_token='b'))
    monkey = HandMadeDataset(tmp_path / 'data')
    run.test_dataloader.dataset = SimpleNamespace(
        metainfo=monkey.metainfo, get_data_info=lambda index: dict(monkey.get_data_info(index), token='a'))
    with pytest.raises(ValueError, match='is sample a, but the prediction is of sample b'):
        BEVVisualizationHook(draw=True).after_test_iter(run, 0, batch(1), [other])


def test_missing_images_warn_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = runner(HandMadeDataset(tmp_path / 'data'), tmp_path)
    (tmp_path / 'data/samples/CAM_FRONT/front.png').unlink()
    hook = BEVVisualizationHook(draw=True, test_out_dir=str(tmp_path / 'out'))
    with caplog.at_level(logging.WARNING):
        for index in range(3):
            hook.after_test_iter(run, index, batch(index), [sample(index)])
    assert len(names(tmp_path / 'out')) == 3
    assert len(caplog.records) == 1 and 'CAM_FRONT' in caplog.text
