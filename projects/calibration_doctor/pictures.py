"""Doctor. In: frames and verdicts. Out: per camera one PNG: LiDAR points and edges on the image, verdict, score map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization.image_files import write_png
from projects.memfusion.visualization.style import BACKGROUND, MUTED, PREDICTION, TEXT, TRUTH, color_bar, colorize, put_text

from .image_checks import ROTATION
from .inputs import DoctorFrame
from .lidar_edges import find_lidar_edges
from .verdict import CameraVerdict

Picture = npt.NDArray[np.uint8]
_WIDTH_PX = 1280
_MAX_DEPTH_M = 50.0
_FAULTY = (255, 80, 70)
_EDGE = (255, 255, 255)
_LINE_PX = 26
_TEXT_CHARS = 150


def write_pictures(frames: Sequence[DoctorFrame], verdicts: Mapping[str, CameraVerdict], out: Path) -> list[Path]:
    """Writes `<camera>.png` of the first frame that has an image of the camera, into the folder `out`."""
    paths = []
    for name, verdict in verdicts.items():
        for frame in frames:
            try:
                image = frame.image(name)
            except (KeyError, OSError):  # missing or unreadable in this frame, which its verdict says
                continue
            paths.append(write_png(out / f'{name}.png', draw_overlay(frame, verdict, image)))
            break
    return paths


def draw_overlay(frame: DoctorFrame, verdict: CameraVerdict, image: Picture) -> Picture:
    """(H, 1370, 3) RGB: title, image with LiDAR points coloured by depth and its edges as white rings, a score map."""
    scale = _WIDTH_PX / image.shape[1]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    view = cv2.resize(image, (_WIDTH_PX, round(image.shape[0] * scale)), interpolation=interpolation)
    view = (view * 0.75).astype(np.uint8)  # so that the colours stand out
    try:
        calibration = Calibration.from_info({verdict.name: frame.info['images'][verdict.name]},
                                            (image.shape[0], image.shape[1]),
                                            global_from_lidar=frame.info.get('global_from_lidar'))
    except ValueError:
        calibration = None
    if calibration is not None:
        _draw_points(view, frame, calibration, scale)
    if verdict.surface is not None:
        _draw_surface(view, verdict)
    body = np.concatenate([view, color_bar(view.shape[0], 0.0, _MAX_DEPTH_M, 'depth m', cv2.COLORMAP_TURBO)], axis=1)
    return np.concatenate([_title(frame, verdict, body.shape[1]), body])


def _draw_points(view: Picture, frame: DoctorFrame, calibration: Calibration, scale: float) -> None:
    points = frame.points()
    points = points[np.linalg.norm(points[:, :3], axis=1) > 1.5]
    spots = torch.from_numpy(points[None, :, :3].copy())
    uv_px, depth_m, valid = (value[0, 0].numpy() for value in calibration.project(spots))
    order = np.flatnonzero(valid)[np.argsort(-depth_m[valid], kind='stable')]  # near ones on top
    colors = colorize(depth_m[order], 0.0, _MAX_DEPTH_M)
    for center, color in zip(_subpixels(uv_px[order], scale), colors.tolist()):
        cv2.circle(view, center, 28, color, -1, cv2.LINE_AA, 4)
    edges, _ = find_lidar_edges(points)
    uv_px, _, valid = (value[0, 0].numpy() for value in calibration.project(torch.from_numpy(edges.points_m[None])))
    for center in _subpixels(uv_px[valid], scale):
        cv2.circle(view, center, 64, _EDGE, 1, cv2.LINE_AA, 4)


def _subpixels(uv_px: npt.NDArray[np.float32], scale: float) -> list[list[int]]:
    """In sixteenths of a pixel of the view, as OpenCV's shift of 4 takes them."""
    return [[int(u), int(v)] for u, v in np.rint(((uv_px + 0.5) * scale - 0.5) * 16)]


def _draw_surface(view: Picture, verdict: CameraVerdict, cell_px: int = 4) -> None:
    """Score over yaw and pitch in the lower right corner: a white cross at the file's values, an orange ring at the peak."""
    assert verdict.surface is not None
    scores = verdict.surface[::-1, ::-1].T  # as faults of the file: the opposite of corrections; pitch downwards
    low, high = np.percentile(scores, 5), scores.max()
    plot = np.asarray(colorize(scores, low, high, cv2.COLORMAP_VIRIDIS), dtype=np.uint8)
    yaw_step, pitch_step = (np.diff(ROTATION.axis(name))[0] for name in ('yaw_deg', 'pitch_deg'))
    tall = round(cell_px * pitch_step / yaw_step)
    plot = cv2.resize(plot, None, fx=cell_px, fy=tall, interpolation=cv2.INTER_NEAREST)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    middle = (plot.shape[1] // 2, plot.shape[0] // 2)
    cv2.drawMarker(plot, middle, (0, 0, 0), cv2.MARKER_CROSS, 22, 5)
    cv2.drawMarker(plot, middle, _EDGE, cv2.MARKER_CROSS, 20, 2)
    peak = int(column) * cell_px + cell_px // 2, int(row) * tall + tall // 2
    cv2.circle(plot, peak, 9, (0, 0, 0), 5, cv2.LINE_AA)
    cv2.circle(plot, peak, 9, PREDICTION, 2, cv2.LINE_AA)
    height, width = plot.shape[:2]
    top, left = view.shape[0] - height - 30, view.shape[1] - width - 8
    if top < 24 or left < 0:  # a very small image
        return
    view[top - 24:, left - 8:] //= 4
    view[top:top + height, left:left + width] = plot
    put_text(view, 'edge score: yaw, pitch +-3 deg', left, top - 8, TEXT, 0.45)
    put_text(view, '+ file', left, top + height + 20, _EDGE, 0.45)
    put_text(view, 'o peak', left + 70, top + height + 20, PREDICTION, 0.45)


def _title(frame: DoctorFrame, verdict: CameraVerdict, width: int) -> Picture:
    facts = [*verdict.problems, *(estimate.text() for estimate in verdict.estimates if not estimate.is_faulty),
             *verdict.notes]
    lines = ['']
    for fact in facts:
        if len(lines[-1]) + len(fact) > _TEXT_CHARS and lines[-1]:
            lines.append('')
        lines[-1] += ('; ' if lines[-1] else '') + fact
    bar = np.full((40 + _LINE_PX * len(lines) + 22, width, 3), BACKGROUND, dtype=np.uint8)
    title, color = ('FAULTY', _FAULTY) if verdict.is_faulty else ('ok', TRUTH)
    put_text(bar, f'{verdict.name}: {title}', 10, 30, color, 0.9)
    legend = 'dots: LiDAR by depth; rings: LiDAR edges, which belong on image edges'
    put_text(bar, f'frame {frame.label}; {legend}', 480, 28, MUTED, 0.45)
    for number, line in enumerate(lines):
        put_text(bar, line[:_TEXT_CHARS + 60], 10, 40 + _LINE_PX * (number + 1) - 6, TEXT, 0.5)
    return bar
