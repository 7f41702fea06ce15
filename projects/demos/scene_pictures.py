"""Demo, one streamed scene. In: config, checkpoint, scene. Out: BEV, camera and gate PNGs and an animated strip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.memfusion.runtime.checkpoint import load_weights, safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.run_checks import check_checkpoint, check_run
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet, draw_bev, draw_cameras, draw_gate, write_png, write_strip
from projects.memfusion.visualization.image_files import read_rgb


@dataclass(frozen=True)
class StreamedFrame:
    """What one test frame gave: its info, points (P, 5), truth with points, predictions, gate (Hm, Wm) or None."""

    info: dict[str, Any]
    points: np.ndarray
    truth: BoxSet
    predictions: BoxSet
    gate: np.ndarray | None


def stream_scene(cfg: Config, checkpoint: str, scene_index: int = 0) -> Iterator[StreamedFrame]:
    """Runs the detector over one test scene in time order."""
    check_run(cfg, 'test')
    model = MODELS.build(cfg.model)
    loaded = safe_load(checkpoint, map_location='cpu')
    load_weights(model, loaded, checkpoint)
    check_checkpoint(loaded, checkpoint, cfg, 'test')
    model.eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    scenes = list(dict.fromkeys(dataset.scene_tokens))
    for position, scene in enumerate(dataset.scene_tokens):
        if scene != scenes[scene_index]:
            continue
        item, info = dataset[position], dataset.get_data_info(position)
        with torch.no_grad():
            sample = model(**model.data_preprocessor(pseudo_collate([item])), mode='predict')[0]
        truth = info['eval_ann_info']
        gate = sample.get('pred_occupancy')
        yield StreamedFrame(
            info=info,
            points=item[-1]['inputs']['points'].numpy(),
            truth=BoxSet(truth['gt_bboxes_3d'].tensor.numpy(), truth['gt_labels_3d']),
            predictions=BoxSet.from_instances(sample.pred_instances_3d),
            gate=None if gate is None else gate[0].numpy())


def draw_scene(cfg: Config, checkpoint: str, out_dir: Path, data_root: Path, score_thr: float = 0.3) -> list[Path]:
    """Writes the pictures of the first test scene into `out_dir`; returns their paths."""
    names, range_m = cfg.class_names, cfg.model.grid.point_cloud_range
    paths, strip = [], []
    for frame in stream_scene(cfg, checkpoint):
        predictions = frame.predictions.above(score_thr)
        truth = frame.truth.keep(frame.truth.labels >= 0)
        title = f"frame {frame.info['frame_index']}"
        bev = draw_bev(frame.points, range_m, truth, predictions, names, title=title)
        panels = [bev]
        if frame.gate is not None:
            panels.append(draw_gate(frame.gate, range_m, frame.points, truth, names, title=title + ': gate'))
        strip.append(side_by_side(panels))
        if frame.info['frame_index'] in (2, 6):
            stem = f"frame{frame.info['frame_index']}"
            paths += [write_png(out_dir / f'{stem}_bev.png', bev)]
            paths += [write_png(out_dir / f'{stem}_gate.png', panel) for panel in panels[1:]]
            cameras = draw_frame_cameras(frame.info, data_root, truth, predictions, names)
            paths += [write_png(out_dir / f'{stem}_cameras.png', cameras)]
            paths += [write_png(out_dir / f'{stem}_overview.png', stack([strip[-1], cameras]))]
    paths += write_strip(strip, out_dir / 'scene.gif')
    return paths


def side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    """Pictures next to each other, cut to the lowest."""
    height = min(panel.shape[0] for panel in panels)
    return np.concatenate([panel[:height] for panel in panels], axis=1)


def stack(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures below each other, scaled to the width of the first."""
    width = pictures[0].shape[1]
    return np.concatenate([cv2.resize(p, (width, round(p.shape[0] * width / p.shape[1])), interpolation=cv2.INTER_AREA)
                           for p in pictures])


def draw_frame_cameras(info: dict[str, Any], data_root: Path, truth: BoxSet, predictions: BoxSet,
                       names: list[str]) -> np.ndarray:
    """The six images of one frame with boxes."""
    images = {}
    for cam, image in info['images'].items():
        path = data_root / 'samples' / cam / Path(image['img_path']).name
        try:
            images[cam] = read_rgb(path)
        except OSError as error:
            raise UserError(f'{path}: missing or not an image; make or fetch the data set again') from error
    sizes = {cam: (image.shape[0], image.shape[1]) for cam, image in images.items()}
    calibration = Calibration.from_info(info['images'], img_hw=sizes)
    return draw_cameras(images, calibration, truth, predictions, names)
