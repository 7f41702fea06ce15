"""Demo, one streamed scene. In: what each of its frames gave. Out: BEV, camera and gate PNGs and an animated strip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet, draw_bev, draw_cameras, draw_gate, write_png, write_strip
from projects.memfusion.visualization.image_files import read_rgb

from .recorded_steps import MemoryFrame


def draw_scene(frames: Iterable[MemoryFrame], range_m: Sequence[float], names: list[str], out_dir: Path, data_root: Path,
               score_thr: float = 0.3) -> list[Path]:
    """Writes the pictures of one streamed scene with truth into `out_dir`; returns their paths."""
    paths, strip = [], []
    for frame in frames:
        assert frame.truth is not None
        predictions, truth = frame.predictions.above(score_thr), frame.truth
        title = f"frame {frame.info['frame_index']}"
        bev = draw_bev(frame.points, range_m, truth, predictions, names, title=title)
        panels = [bev]
        if frame.gate is not None:
            panels.append(draw_gate(frame.gate, range_m, frame.points, truth, names, title=f'{title}: {frame.gate_name}'))
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
