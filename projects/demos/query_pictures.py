"""Demo, queries at work. In: config, checkpoint, a test frame. Out: PNGs of all queries, their points, one query's attention.

The frame runs through the detector as in testing, after those before it where the detector remembers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.memfusion.hooks.visualization_hook import image_path
from projects.memfusion.runtime.checkpoint import load_weights, safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.runtime.run_checks import check_checkpoint, check_run
from projects.memfusion.visualization import (
    BoxSet,
    QueryRecord,
    QueryRecorder,
    draw_queries,
    draw_query_attention,
    draw_query_cameras,
    records_queries,
    write_png,
)
from projects.memfusion.visualization.image_files import read_rgb

from .streaming import find_scene

_FOLLOWED = 8
_NEAR_M = 4.0


def draw_query_pictures(cfg: Config, checkpoint: str, out_dir: Path, scene: str | None = None, frame: int = 0,
                        query: int | None = None, at_m: tuple[float, float] | None = None, layer: int = -1,
                        trust: bool = False) -> list[Path]:
    """Writes `queries.png`, `query_cameras.png` and, for heads that attend, `query_attention.png` into `out_dir`.

    Args:
        cfg: with a query head in model.pts_bbox_head.
        scene: name or token; None is the test set's first.
        frame: of the scene, from 0.
        query: whose attention is drawn, by number; None is the best, or
        at_m: the best of those whose box lies within 4 m of x, y in that frame's LiDAR coordinates.
        layer: of the decoder, from 0; -1 is the last. Points and attention are this one's.
        trust: read the checkpoint without protection.

    Raises:
        UserError: for a config without queries, an unknown scene, a frame, query, place or layer that is not there.
    """
    init_registry()
    model = build_querying(cfg, checkpoint, trust)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    name, positions = find_scene(dataset, scene)
    if not 0 <= frame < len(positions):
        raise UserError(f'--frame {frame}: scene {name} has frames 0 to {len(positions) - 1}')
    first = 0 if model.temporal is not None else frame
    with QueryRecorder(model.pts_bbox_head) as recorder, torch.no_grad():
        for position in positions[first:frame + 1]:
            item = dataset[position]
            model(**model.data_preprocessor(pseudo_collate([item])), mode='predict')
        record = recorder.record(most=_FOLLOWED)
        try:
            one = recorder.record(chosen=[choose_query(record, query, at_m)])
        except ValueError as error:
            raise UserError(f'--query: {error}') from error
    return _draw(record, one, dataset, positions[frame], item, out_dir, layer, f'{name}, frame {frame}',
                 model.grid.point_cloud_range)


def _draw(record: QueryRecord, one: QueryRecord, dataset: Any, position: int, item: Any, out_dir: Path, layer: int, title: str,
          range_m: Any) -> list[Path]:
    info, names = dataset.get_data_info(position), dataset.metainfo['classes']
    paths = {camera: image_path(dataset, camera, image.get('img_path')) for camera, image in (info.get('images') or {}).items()}
    images = {camera: read_rgb(path) for camera, path in paths.items() if path is not None}
    cloud = item[-1]['inputs'].get('points')
    points = None if cloud is None else cloud.numpy()
    labels = info.get('eval_ann_info')
    truth = None if labels is None else BoxSet.from_instances(labels)
    try:
        attends = one.looks(layer).attends
    except ValueError as error:
        raise UserError(f'--{error}, from 0') from error
    out_dir.mkdir(parents=True, exist_ok=True)
    drawn = [write_png(out_dir / 'queries.png', draw_queries(record, range_m, points, truth, names, title, layer=layer))]
    if images and record.rig is not None:
        drawn.append(write_png(out_dir / 'query_cameras.png', draw_query_cameras(record, images, names, layer=layer)))
    if attends:
        picture = draw_query_attention(one, range_m, images, points, truth, names, layer, title)
        drawn.append(write_png(out_dir / 'query_attention.png', picture))
    return drawn


def choose_query(record: QueryRecord, query: int | None, at_m: tuple[float, float] | None) -> int:
    """The number that is asked for, or of the best query, near a place where one is given.

    Raises:
        UserError: where no query's box lies near the place.
    """
    if query is not None:
        return query
    scores = record.scores
    if at_m is not None:
        near = np.linalg.norm(record.boxes[-1, :, :2] - np.array(at_m), axis=1) < _NEAR_M
        if not near.any():
            raise UserError(f'--at {at_m[0]:g} {at_m[1]:g}: no query found a box within {_NEAR_M:g} m')
        scores = np.where(near, scores, -1.0)
    return int(scores.argmax())


def build_querying(cfg: Config, checkpoint: str, trust: bool = False) -> Any:
    """The config's detector with its weights, in eval mode, on the GPU where there is one.

    Raises:
        UserError: where its head has no queries, or the checkpoint is not its own.
    """
    check_run(cfg, 'test')
    model = MODELS.build(cfg.model)
    if not model.with_pts_bbox or not records_queries(model.pts_bbox_head):
        kind = type(model.pts_bbox_head).__name__ if model.with_pts_bbox else None
        raise UserError(f'{cfg.filename}: model.pts_bbox_head is {kind}, which has no queries; give a config of configs/query')
    loaded = safe_load(checkpoint, map_location='cpu', trust=trust)
    load_weights(model, loaded, checkpoint)
    check_checkpoint(loaded, checkpoint, cfg, 'test')
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
