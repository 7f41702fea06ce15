"""Demo, a scene for a report's player. In: config, checkpoint, scene. Out: its frames with truth, boxes, gate, images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS
from mmengine.config import Config

from projects.memfusion.data.errors import DataError
from projects.memfusion.hooks.visualization_hook import image_path
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization.image_files import read_rgb
from projects.reports import PlayedFrame, PlayedScene

from .recorded_steps import MemoryFrame, stream_memory
from .streaming import find_scene, load_detector

MOST_FRAMES = 20
"""A page holds about 0.2 MB a frame."""


def play_scene(cfg: Config, checkpoint: Path, scene: str | None = None, most_frames: int = MOST_FRAMES,
               trust: bool = False) -> PlayedScene:
    """Streams the first frames of a test scene.

    Args:
        cfg: of a detector whose test_dataloader knows scenes.
        checkpoint: its weights.
        scene: name or token; None is the test set's first.
        most_frames: frames that are played.
        trust: read the checkpoint without protection.

    Raises:
        UserError: for a checkpoint of another detector, an unknown scene, or a data set that does not know scenes.
    """
    init_registry()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    name, positions = find_scene(dataset, scene)
    model = load_detector(cfg, str(checkpoint), trust)
    return played(name, stream_memory(model, dataset, positions[:most_frames]), dataset, model.grid.point_cloud_range)


def play_or_say(cfg: Config, checkpoint: Path, trust: bool = False) -> tuple[PlayedScene | None, str]:
    """The first test scene, or None and why there is none: a study may have been trained elsewhere, or in parts."""
    if not checkpoint.is_file():
        return None, f'No scene: the weights {checkpoint} are not here.'
    try:
        return play_scene(cfg, checkpoint, trust=trust), ''
    except (UserError, OSError, DataError) as error:
        return None, f'No scene: {error}'


def played(name: str, frames: Iterable[MemoryFrame], dataset: Any, range_m: Any) -> PlayedScene:
    """What a detector gave in a scene's frames, with the images that are there."""
    shown, gate_name = [], 'gate'
    for number, frame in enumerate(frames):
        images = _images(dataset, frame.info)
        sizes = {camera: (image.shape[0], image.shape[1]) for camera, image in images.items()}
        rig = Calibration.from_info(frame.info['images'], img_hw=sizes, cam_names=list(images)) if images else None
        gate_name = gate_name if frame.gate is None else frame.gate_name
        shown.append(PlayedFrame(f'frame {number}', frame.points, frame.truth, frame.predictions, frame.gate, images, rig))
    return PlayedScene(name, range_m, dataset.metainfo['classes'], shown, gate_name)


def _images(dataset: Any, info: dict[str, Any]) -> dict[str, np.ndarray]:
    """RGB by camera, of the images that are there."""
    paths = {name: image_path(dataset, name, image.get('img_path')) for name, image in (info.get('images') or {}).items()}
    return {name: read_rgb(path) for name, path in paths.items() if path is not None}
