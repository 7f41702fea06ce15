"""Doctor. In: an RGB image. Out: maps of how strong its edges are against their surroundings, across and along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.float32]
MAP_WIDTH_PX = 800
_COLOUR_WEIGHTS = (1.0, 1.5, 1.5)  # of L, a, b
_NEIGHBOURHOOD = 0.05  # of the width: what is strong is judged against what lies around it


@dataclass(frozen=True)
class ImageEdges:
    """Edge strength, 0 on average and 1 standard deviation in each neighbourhood.

    Attributes:
        upright, level: (h, w) of steps across (upright lines) and of steps downwards (level lines).
        scale: map pixels per image pixel.
    """

    upright: Map
    level: Map
    scale: float


def map_scale(image: npt.NDArray[np.uint8]) -> float:
    """Map pixels per image pixel."""
    return min(1.0, MAP_WIDTH_PX / image.shape[1])


def find_image_edges(image: npt.NDArray[np.uint8], blur_px: float) -> ImageEdges:
    """Edges of an (H, W, 3) RGB image.

    Args:
        blur_px: of the result, in map pixels; wide enough that a search with steps cannot miss an edge.
    """
    scale = map_scale(image)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.0 if scale < 1 else 0.7) * np.array(_COLOUR_WEIGHTS, dtype=np.float32)
    across, down = (np.abs(cv2.Sobel(lab, cv2.CV_32F, *order, ksize=3)).max(axis=2) for order in ((1, 0), (0, 1)))
    return ImageEdges(_standardise(across, blur_px), _standardise(down, blur_px), scale)


def _standardise(strength: Map, blur_px: float) -> Map:
    root = np.sqrt(strength)
    sigma = _NEIGHBOURHOOD * root.shape[1]
    mean = cv2.GaussianBlur(root, (0, 0), sigma)
    spread = np.sqrt(cv2.GaussianBlur((root - mean) ** 2, (0, 0), sigma))
    return cv2.GaussianBlur((root - mean) / (spread + 0.5), (0, 0), blur_px)
