"""Demo: the whole pipeline on one real nuScenes keyframe. In: its folder. Out: pictures and figures; LiDAR frame.

It learns the frame by heart: not a test of generality, but of conventions (axes, yaw, length and width, box origin,
calibration), which a world of our own making cannot give.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from projects.memfusion.data.box_points_check import count_in_boxes
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet, draw_bev, draw_cameras, draw_lidar_on_cameras, write_png

from .input import Keyframe, read_keyframe
from .page import report_keyframe
from .score import (
    MIN_POINTS,
    MIN_SCORE,
    KeyframeScore,
    box_points_error,
    score_keyframe,
)

CONFIG = Path(__file__).resolve().parents[3] / 'configs/demo/keyframe_pillar04.py'
MARKER = '.made_by_demo_keyframe'
PICTURES = ('lidar_cameras.png', 'truth_bev.png', 'truth_cameras.png', 'prediction_bev.png', 'prediction_cameras.png')


def run_keyframe(folder: Path, out: Path, steps: int | None = None, seed: int = 0,
                 config: Path = CONFIG) -> KeyframeScore:
    """Checks, draws, overfits, scores and draws again.

    Args:
        folder: holds one mmdet3d v1.1 info .pkl, the images and the .pcd.bin.
        out: where the pictures go: a new or empty folder, or one that this tool made.
        steps: training steps; None takes the config's.
        seed: of the weights.
        config: the detector.

    Raises:
        UserError: for input or output that cannot be used, BadFrameError for broken point files.
    """
    init_default_scope('mmdet3d')
    if not MMLogger.check_instance_created('keyframe'):  # without it, pages about weight initialisation
        MMLogger.get_instance('keyframe', log_level='WARNING')
    cfg = Config.fromfile(config)  # its custom_imports register our modules
    keyframe = read_keyframe(folder, cfg.class_names)
    frame = Compose(cfg.pipeline)(keyframe.pipeline_input())
    points = _all_points(keyframe, cfg)
    objects = _num_objects(keyframe, cfg.point_cloud_range)
    counted = count_in_boxes(points, keyframe.boxes.tensor.numpy(), from_bottom=True)
    check_complete(keyframe, counted, len(points))
    prepare_out(out)
    print(f'{folder}: {len(points)} points, {len(keyframe.images)} images, {len(keyframe.labels)} objects, {objects} '
          f'of them in range with at least {MIN_POINTS} points', flush=True)
    points_error = box_points_error(counted, keyframe.num_lidar_pts)
    calibration = calibration_of(keyframe)
    draw_truth(keyframe, calibration, points, cfg, out)

    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    model.init_weights()
    overfit(model, frame, cfg, steps or cfg.num_steps)
    predictions = predict(model, frame)
    score = score_keyframe(
        keyframe.boxes.tensor.numpy(), keyframe.labels, keyframe.num_lidar_pts, predictions.boxes, predictions.labels,
        predictions.scores, points_error, cfg.class_names, cfg.point_cloud_range)
    draw_predictions(keyframe, calibration, points, predictions.above(MIN_SCORE), cfg, out)
    report_keyframe(keyframe, points, _truth(keyframe), predictions, calibration, score, config, cfg.class_names,
                    cfg.point_cloud_range, out)
    return score


def calibration_of(keyframe: Keyframe) -> Calibration:
    """The keyframe's cameras; UserError where they cannot be read."""
    sizes = {name: (image.shape[0], image.shape[1]) for name, image in keyframe.images.items()}
    try:
        return Calibration.from_info(keyframe.info['images'], img_hw=sizes)
    except ValueError as error:
        raise UserError(str(error)) from error


def prepare_out(out: Path) -> None:
    """Makes the output folder; an earlier run's pictures go, anything else is left alone (UserError)."""
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is not a folder: choose another --out')
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise UserError(f'{out} has data that this tool did not make: choose another --out, nothing was written')
    out.mkdir(parents=True, exist_ok=True)
    for name in (*PICTURES, 'report.html'):
        (out / name).unlink(missing_ok=True)
    (out / MARKER).write_text('pictures of tools/demo_keyframe.py; a new run replaces them\n')


def check_complete(keyframe: Keyframe, counted: np.ndarray, num_points: int) -> None:
    """UserError where some boxes lost all their points and the others none: the file was cut, no convention is at fault."""
    given = keyframe.num_lidar_pts
    lost = (given >= MIN_POINTS) & (counted == 0)
    kept = (given >= MIN_POINTS) & ~lost
    if lost.sum() >= 2 and np.abs(counted - given)[kept].sum() <= 0.1 * given[kept].sum():
        raise UserError(f'{keyframe.lidar_path}: has {num_points} points, and none in {lost.sum()} boxes that held at least '
                        f'{MIN_POINTS}: the file is truncated or of another frame; copy it again')


def overfit(model: BaseModel, frame: dict[str, Any], cfg: Config, steps: int) -> None:
    """Trains on this one frame, learning rate up and down in one cycle; prints loss and time."""
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rate = cfg.optim_wrapper.optimizer.lr
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim_wrapper.optimizer, max_lr=rate, total_steps=steps)
    batch = pseudo_collate([frame])
    model.train()
    start = time.perf_counter()
    for step in range(1, steps + 1):
        losses = model.train_step(batch, optim_wrapper)
        schedule.step()
        if step == 1 or step % 10 == 0 or step == steps:
            spent = time.perf_counter() - start
            print(f'step {step}/{steps}  loss {losses["loss"].item():.3f}  {spent:.0f} s, about '
                  f'{spent / step * (steps - step):.0f} s to go', flush=True)


def predict(model: BaseModel, frame: dict[str, Any]) -> BoxSet:
    """Boxes that the trained model finds, any score."""
    model.eval()
    with torch.no_grad():
        sample = model.test_step(pseudo_collate([frame]))[0]
    return BoxSet.from_instances(sample.pred_instances_3d)


def draw_truth(keyframe: Keyframe, calibration: Calibration, points: np.ndarray, cfg: Config, out: Path) -> None:
    """LiDAR on the images, and the annotated boxes from above and on the images."""
    truth = _truth(keyframe)
    write_png(out / 'lidar_cameras.png', draw_lidar_on_cameras(keyframe.images, calibration, points))
    write_png(out / 'truth_bev.png', draw_bev(
        points, [2 * value for value in cfg.point_cloud_range], truth, class_names=cfg.class_names, title='truth'))
    write_png(out / 'truth_cameras.png', draw_cameras(
        keyframe.images, calibration, truth, class_names=cfg.class_names))


def draw_predictions(keyframe: Keyframe, calibration: Calibration, points: np.ndarray, predictions: BoxSet,
                     cfg: Config, out: Path) -> None:
    """Truth of known classes in range and predictions, from above and on the images."""
    x_min, y_min, _, x_max, y_max, _ = cfg.point_cloud_range
    truth = _truth(keyframe)
    x, y = truth.boxes[:, 0], truth.boxes[:, 1]
    truth = truth.keep((x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max) & (truth.labels >= 0))
    write_png(out / 'prediction_bev.png', draw_bev(
        points, cfg.point_cloud_range, truth, predictions, cfg.class_names, title='overfitted on this frame'))
    write_png(out / 'prediction_cameras.png', draw_cameras(
        keyframe.images, calibration, truth, predictions, cfg.class_names))


def _truth(keyframe: Keyframe) -> BoxSet:
    """Annotated objects that hold a point."""
    return BoxSet(keyframe.boxes, keyframe.labels).keep(keyframe.num_lidar_pts > 0)


def _all_points(keyframe: Keyframe, cfg: Config) -> np.ndarray:
    """(P, 5) through the pipeline's own loader, before it cuts to the range."""
    loaded = Compose(cfg.pipeline[:1])(keyframe.pipeline_input())
    return loaded['points'].tensor.numpy()


def _num_objects(keyframe: Keyframe, range_m: list[float]) -> int:
    x, y = keyframe.boxes.tensor[:, 0].numpy(), keyframe.boxes.tensor[:, 1].numpy()
    inside = (x >= range_m[0]) & (x < range_m[3]) & (y >= range_m[1]) & (y < range_m[4])
    count = int((inside & (keyframe.labels >= 0) & (keyframe.num_lidar_pts >= MIN_POINTS)).sum())
    if not count:
        raise UserError(f'the keyframe has no object of a known class within {range_m} m with at least {MIN_POINTS} '
                        'LiDAR points: there is nothing to learn from it')
    return count
