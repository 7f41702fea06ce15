"""Pictures. In: forecast futures of agents, truth beside (BEV frame, metres). Out: RGB, from above and in a camera."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from projects.memfusion.structures import Agents, Calibration

from .bev import BEVCanvas, draw_boxes, draw_ego, draw_points, draw_rings, gate_image
from .box_set import BoxSet
from .cameras import box_lines, scaled, tile_of
from .style import MUTED, PREDICTION, TRUTH, Color, draw_legend, put_text

_FAR_PX = 1e5
_LEAST = 0.35  # brightness of a mode without probability, beside the likeliest of its agent


@dataclass(frozen=True)
class FutureSet:
    """Futures of n agents of one frame.

    Attributes:
        boxes: (n, 7) as mmdet3d's LiDAR boxes: the agents now.
        modes: (n, M, 12, 2) BEV metres.
        probabilities: (n, M).
        truth: (n, 12, 2) BEV metres.
        known: (n, 12) bool, steps of the truth that are there.
    """

    boxes: np.ndarray
    modes: np.ndarray
    probabilities: np.ndarray
    truth: np.ndarray
    known: np.ndarray

    @classmethod
    def of_agents(cls, agents: Agents, modes: Tensor, probabilities: Tensor) -> FutureSet:
        """Of one scene's agents (B = 1) and their modes (n, M, 12, 2), agent frame, with (n, M) probabilities."""
        count = len(agents.tokens[0])
        boxes = agents.boxes[0, :count, -1].double().cpu().numpy()
        truth = agents.future_xy[0, :count].double().cpu().numpy()
        return cls(boxes, agent_to_bev(modes.detach().double().cpu().numpy(), boxes), probabilities.detach().cpu().numpy(),
                   agent_to_bev(truth, boxes), agents.future_valid[0, :count].cpu().numpy())

    def lines(self) -> Iterator[tuple[np.ndarray, Color, int, str]]:
        """Polylines (S, 2) in BEV metres with colour, thickness and what stands at their end: likely modes over unlikely ones,
        the truth last."""
        for box, paths, shares in zip(self.boxes, self.modes, self.probabilities):
            for mode in np.argsort(shares, kind='stable'):
                bright = _LEAST + (1 - _LEAST) * float(shares[mode] / shares.max())
                red, green, blue = (round(bright * channel) for channel in PREDICTION)
                text = f'{100 * shares[mode]:.0f}%' if len(shares) > 1 else ''
                yield np.concatenate([box[None, :2], paths[mode]]), (red, green, blue), 1 + (shares[mode] == shares.max()), text
        for box, path, known in zip(self.boxes, self.truth, self.known):
            yield np.concatenate([box[None, :2], path[known]]), TRUTH, 2, ''


def agent_to_bev(xy: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n, ..., 2) in the agents' frames, heading along +y -> BEV metres, by their boxes (n, 7)."""
    shape = (-1, *[1] * (xy.ndim - 2))
    cos, sin = np.cos(boxes[:, 6]).reshape(shape), np.sin(boxes[:, 6]).reshape(shape)
    right, ahead = xy[..., 0], xy[..., 1]
    return np.stack([ahead * cos + right * sin + boxes[:, 0].reshape(shape),
                     ahead * sin - right * cos + boxes[:, 1].reshape(shape)], axis=-1)


def draw_futures(futures: FutureSet, range_m: Sequence[float], points: np.ndarray | None = None,
                 raster: np.ndarray | Tensor | None = None, title: str = '', size_px: int = 900) -> np.ndarray:
    """From above: boxes of now, every mode orange, the brighter the likelier, with its probability at its end, truth green.

    Args:
        range_m: x_min, y_min, x_max, y_max, or a point_cloud_range.
        points: (P, 3+) to be drawn below.
        raster: (h, w) in 0..1 over the range, row 0 at y_min, drawn below where there are no points.

    Returns:
        (H, W, 3) uint8.
    """
    canvas = BEVCanvas.of_range(range_m, size_px)
    image = canvas.blank()
    if points is not None:
        draw_points(image, canvas, points)
    elif raster is not None:
        image = cv2.addWeighted(image, 0.6, gate_image(canvas, raster, cv2.COLORMAP_BONE), 0.6, 0)
    draw_rings(image, canvas)
    draw_ego(image, canvas)
    draw_boxes(image, canvas, BoxSet(futures.boxes), MUTED, ())
    for path, color, thickness, text in futures.lines():
        pixels = np.clip(canvas.to_px(path), -_FAR_PX, _FAR_PX)
        cv2.polylines(image, [np.rint(pixels * 16).astype(np.int32)], False, color, thickness, cv2.LINE_AA, 4)
        if text and canvas.contains(path[-1]):
            column, row = (round(float(value)) + 3 for value in pixels[-1])
            put_text(image, text, column, row, PREDICTION, scale=0.35)
    draw_legend(image, _legend(futures, title), 8, 8, scale=0.45)
    return image


def draw_futures_camera(image: np.ndarray, calibration: Calibration, name: str, futures: FutureSet, title: str = '',
                        width_px: int = 960) -> np.ndarray:
    """The same on one camera's image, on the ground that the agents stand on; probabilities at the last point that is seen.

    Args:
        image: (H, W, 3) uint8 RGB, in the pixels that `calibration` projects to.
        calibration: B must be 1; of the agents' BEV frame.
        name: which of its cameras.
    """
    tile, scale = tile_of(image, width_px), width_px / image.shape[1]
    count = len(futures.probabilities)
    ground = [*np.repeat(futures.boxes[:, 2], futures.probabilities.shape[1] if count else 0), *futures.boxes[:, 2]]
    for (path, color, thickness, text), z in zip(futures.lines(), ground):
        raised = np.concatenate([path, np.full((len(path), 1), z)], axis=1)
        lines, _ = box_lines(calibration, name, np.stack([raised[:-1], raised[1:]], axis=1))
        pixels = np.clip(scaled(lines, scale), -_FAR_PX, _FAR_PX)
        for line in np.rint(pixels * 16).astype(np.int64):
            cv2.line(tile, line[0].tolist(), line[1].tolist(), color, thickness, cv2.LINE_AA, 4)
        seen = [end for end in pixels[:, 1] if (end >= 0).all() and (end < tile.shape[1::-1]).all()]
        if text and seen:
            column, row = (round(float(value)) + 3 for value in seen[-1])
            put_text(tile, text, column, row, PREDICTION, scale=0.4)
    draw_legend(tile, _legend(futures, title), 8, 8, scale=0.45)
    return tile


def _legend(futures: FutureSet, title: str) -> list[tuple[str, Color | None]]:
    entries: list[tuple[str, Color | None]] = [(title, None)] if title else []
    return [*entries, (f'truth ({len(futures.boxes)})', TRUTH), ('futures, brighter is likelier', PREDICTION)]
