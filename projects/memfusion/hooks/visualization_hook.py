"""Hook. In: test batches and their predictions (LiDAR frame). Out: PNGs from above, on images, of gate, queries, futures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import HOOKS
from mmdet3d.structures import Det3DDataSample
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import (
    BoxSet,
    FutureSet,
    QueryRecorder,
    draw_bev,
    draw_cameras,
    draw_futures,
    draw_futures_camera,
    draw_gate,
    draw_queries,
    draw_query_cameras,
    records_queries,
    write_png,
)
from projects.memfusion.visualization.image_files import read_rgb

_DEFAULT_RANGE_M = (-51.2, -51.2, 51.2, 51.2)


@HOOKS.register_module()
class BEVVisualizationHook(Hook):
    """Draws test samples: `<scene>_<frame>_bev.png`, `_cameras.png`, `_gate.png` where the model has a gate, `_queries.png` and
    `_query_cameras.png` where its head has queries, `_futures.png` and `_futures_camera.png` (the first camera that is there,
    the front one where it is) where it forecasts.

    Works on mmdet3d's own batches and on clips (of which the last frame is predicted and drawn). Camera pictures are left
    out, with one warning, where the info or the disk has no images. At the end it says how many samples were drawn.

    Args:
        draw: off unless True; `tools/test.py --show-dir` switches it on.
        score_thr: predictions below this are not drawn.
        test_out_dir: where the pictures go; None is `pictures` in the work dir.
        interval: every how many samples one is drawn (counted per process).
        max_samples: how many samples are drawn at most, shared out among the processes; None draws all.

    Raises:
        ValueError: for an interval or max_samples below 1; where predictions cannot be paired with a batch or an info.
    """

    def __init__(self, draw: bool = False, score_thr: float = 0.3, test_out_dir: str | None = None, interval: int = 1,
                 max_samples: int | None = None) -> None:
        if interval < 1:
            raise ValueError(f'default_hooks.visualization.interval must be at least 1, got {interval}')
        if max_samples is not None and max_samples < 1:
            raise ValueError('default_hooks.visualization.max_samples must be at least 1, or None for all, got '
                             f'{max_samples}')
        self.draw, self.score_thr, self.test_out_dir = draw, score_thr, test_out_dir
        self.interval, self.max_samples = interval, max_samples
        self._num_seen = self._num_drawn = 0
        self._warned = False
        self._recorder: QueryRecorder | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        """Counts anew."""
        self._num_seen = self._num_drawn = 0
        self._warned = False
        if self.draw and records_queries(head := _head_of(runner)):
            self._recorder = QueryRecorder(head)
            self._recorder.__enter__()

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict | list | None = None,
                        outputs: Sequence[Det3DDataSample] | None = None) -> None:
        """Draws this batch's samples whose turn it is."""
        if not self.draw or not outputs:
            return
        last: Any = data_batch[-1] if isinstance(data_batch, list) else data_batch  # of a clip, its last frame is predicted
        points = _points(last, len(outputs))
        for row, (sample, cloud) in enumerate(zip(outputs, points)):
            turn = self._num_seen % self.interval == 0
            self._num_seen += 1
            if turn and self._num_drawn < _share(self.max_samples):
                self._num_drawn += 1
                if sample.get('pred_futures') is not None:
                    self._draw_futures(runner, sample, last['inputs'], cloud, row)
                if sample.get('pred_instances_3d') is not None:
                    self._draw_sample(runner, sample, cloud, row)
        if self._recorder is not None:
            self._recorder.clear()

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Says how many samples all processes drew; a run that drew none says why."""
        if self._recorder is not None:
            self._recorder.__exit__()
            self._recorder = None
        if not self.draw:
            return
        counts = all_gather_object((self._num_drawn, self._num_seen))
        drawn, seen = (sum(column) for column in zip(*counts))
        if drawn:
            runner.logger.info(f'{drawn} of {seen} samples were drawn into {self._folder(runner)}')
        else:
            runner.logger.warning(
                f'no picture was drawn into {self._folder(runner)}: the test run gave {seen} predicted samples '
                f'(default_hooks.visualization: interval={self.interval}, max_samples={self.max_samples})')

    def _folder(self, runner: Runner) -> Path:
        return Path(self.test_out_dir) if self.test_out_dir else Path(runner.work_dir) / 'pictures'

    def _draw_sample(self, runner: Runner, sample: Det3DDataSample, points: np.ndarray | None, row: int) -> None:
        dataset = runner.test_dataloader.dataset
        info = _info_of(dataset, sample)
        names = dataset.metainfo['classes']
        range_m = _range(runner)
        folder = self._folder(runner)
        stem = _stem(info)
        truth = BoxSet.from_instances(info['eval_ann_info']) if info.get('eval_ann_info') else None
        predictions = BoxSet.from_instances(sample.pred_instances_3d).above(self.score_thr)
        write_png(folder / f'{stem}_bev.png',
                  draw_bev(points, range_m, truth, predictions, names, title=f'{stem}, score >= {self.score_thr:g}'))
        gate = sample.get('pred_occupancy')
        if gate is not None:
            write_png(folder / f'{stem}_gate.png', draw_gate(gate, range_m, points, truth, names, title=stem))
        images = self._images(runner, dataset, info)
        if self._recorder is not None and self._recorder.has_call:
            record = self._recorder.record(row)
            write_png(folder / f'{stem}_queries.png', draw_queries(record, range_m, points, truth, names, stem))
            if images and record.rig is not None:
                write_png(folder / f'{stem}_query_cameras.png', draw_query_cameras(record, images, names))
        if images:
            sizes = {name: (image.shape[0], image.shape[1]) for name, image in images.items()}
            calibration = Calibration.from_info(
                info['images'], img_hw=sizes, bev_aug=sample.metainfo.get('bev_aug'), cam_names=list(images))
            write_png(folder / f'{stem}_cameras.png', draw_cameras(images, calibration, truth, predictions, names))

    def _draw_futures(self, runner: Runner, sample: Any, inputs: Mapping[str, Any], points: np.ndarray | None,
                      row: int) -> None:
        dataset = runner.test_dataloader.dataset
        info = _info_of(dataset, sample)
        stem, folder, found = _stem(info), self._folder(runner), sample.pred_futures
        futures = FutureSet.of_agents(inputs['agents'][row], found.modes, found.probabilities)
        raster = inputs['raster'][row][0] if points is None and 'raster' in inputs else None
        write_png(folder / f'{stem}_futures.png', draw_futures(futures, _range(runner), points, raster, title=stem))
        images = self._images(runner, dataset, info)
        if images:
            name = 'CAM_FRONT' if 'CAM_FRONT' in images else next(iter(images))
            height, width = images[name].shape[:2]
            rig = Calibration.from_info(info['images'], img_hw={name: (height, width)}, cam_names=[name],
                                        bev_aug=sample.metainfo.get('bev_aug'))
            picture = draw_futures_camera(images[name], rig, name, futures, title=stem)
            write_png(folder / f'{stem}_futures_camera.png', picture)

    def _images(self, runner: Runner, dataset: Any, info: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """RGB by camera, of the images that are there."""
        cameras = info.get('images') or {}
        paths = {name: image_path(dataset, name, image.get('img_path')) for name, image in cameras.items()}
        absent = [name for name, path in paths.items() if path is None]
        if not self._warned and (absent or not paths):
            self._warned = True
            runner.logger.warning(
                f'no image files of {", ".join(absent) or "any camera"} for sample {_stem(info)} (data_root '
                f'{getattr(dataset, "data_root", None)}): they are left out of the camera pictures')
        return {name: read_rgb(path) for name, path in paths.items() if path is not None}


def image_path(dataset: Any, camera: str, path: str | None) -> Path | None:
    """Where a camera's image lies; None where it is not there.

    A data set that does not use cameras leaves img_path as the info has it (mmdet3d: the file's name alone), so the
    data set's prefixes and nuScenes' own folders are tried.
    """
    if not path:
        return None
    prefix = getattr(dataset, 'data_prefix', None) or {}
    root = Path(getattr(dataset, 'data_root', None) or '.')
    tries = [Path(path), Path(prefix.get(camera) or prefix.get('img') or root) / path,
             root / 'samples' / camera / Path(path).name, root / path]
    return next((found for found in tries if found.is_file()), None)


def _share(max_samples: int | None) -> float:
    """How many of them this process may draw; the first ones take what does not divide."""
    if max_samples is None:
        return math.inf
    rank, world_size = get_dist_info()
    return max_samples // world_size + (rank < max_samples % world_size)


def _head_of(runner: Runner) -> Any:
    model = getattr(runner, 'model', None)
    return getattr(getattr(model, 'module', model), 'pts_bbox_head', None)


def _info_of(dataset: Any, sample: Det3DDataSample) -> dict[str, Any]:
    """The info of a predicted sample; ValueError where the data set has another sample at its index (joined data sets)."""
    index = sample.metainfo['sample_idx']
    info = dataset.get_data_info(index)
    tokens = info.get('token'), sample.metainfo.get('sample_token')
    if None not in tokens and tokens[0] != tokens[1]:
        raise ValueError(f'pictures: item {index} of {type(dataset).__name__} is sample {tokens[0]}, but the prediction is of '
                         f'sample {tokens[1]}: they can be drawn for a single test data set only')
    return info


def _points(batch: Any, num_samples: int) -> list[np.ndarray | None]:
    """(P, D) points of each sample of a batch; None where the batch is of another kind (test-time augmentation)."""
    inputs = batch.get('inputs') if isinstance(batch, Mapping) else None
    if not isinstance(inputs, Mapping) or 'points' not in inputs:
        return [None] * num_samples
    if len(inputs['points']) != num_samples:
        raise ValueError(f'pictures: a batch of {len(inputs["points"])} samples gave {num_samples} predictions: which is of '
                         'which is not known')
    return [points.detach().cpu().numpy() for points in inputs['points']]


def _range(runner: Runner) -> Sequence[float]:
    """The detector's range, from `model.grid` or, in mmdet3d's own configs, `point_cloud_range`."""
    grid = runner.cfg.get('model', {}).get('grid') or {}
    return grid.get('point_cloud_range') or runner.cfg.get('point_cloud_range') or _DEFAULT_RANGE_M


def _stem(info: Mapping[str, Any]) -> str:
    """`<scene>_<frame>`; infos of mmdet3d's own converter do not know their scene, so `sample_<index>`."""
    scene = info.get('scene_name') or info.get('scene_token')
    if scene is None or 'frame_index' not in info:
        return f'sample_{info["sample_idx"]:05d}'
    return f'{scene}_{info["frame_index"]:03d}'
