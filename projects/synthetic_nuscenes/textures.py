"""Sensor stage: names in, small texel grids of brightness or colour out (texel (0, 0) is the lower left of a face)."""

from __future__ import annotations

import functools

import numpy as np

_FIXED = {'glass': (70, 60, 50), 'dark': (35, 35, 38), 'skin': (130, 160, 200)}


def _facade() -> np.ndarray:
    gain = np.ones((28, 28, 3))
    gain[2::4, 1::3] = gain[3::4, 1::3] = 0.45
    return gain


def _bricks() -> np.ndarray:
    gain = np.ones((12, 24, 3))
    gain[::3] = 0.7
    gain[1::6, ::4] = gain[4::6, 2::4] = 0.75
    return gain


def _wheels(gain: np.ndarray, rows: int) -> np.ndarray:
    width = gain.shape[1]
    for center in (0.2, 0.8):
        gain[:rows, int((center - 0.08) * width) : int((center + 0.08) * width)] = 0.12
    return gain


@functools.cache
def texture(name: str) -> tuple[np.ndarray, bool]:
    """Texels (h, w, 3) and whether they multiply the paint (True) or are colours in BGR of their own (False).

    Raises:
        KeyError: unknown name.
    """
    if name in _FIXED:
        return np.array(_FIXED[name], dtype=np.float64).reshape(1, 1, 3), False
    leaves = np.random.Generator(np.random.PCG64(7)).uniform(0.55, 1.25, (24, 24, 1)) * np.ones((24, 24, 3))
    windows = np.ones((12, 24, 3))
    windows[6:10] = 0.35
    windows[6:10, ::4] = 1.0
    rows, columns = np.indices((16, 32))
    hazard = np.where(((rows + columns) // 4 % 2 == 0)[..., None], 1.0, 0.18) * np.ones((16, 32, 3))
    panels = np.ones((16, 32, 3))
    panels[:, ::8] = 0.6
    panels[11:14] = 1.25
    clothes = np.ones((10, 4, 3))
    clothes[:5] = 0.5
    bands = np.ones((6, 4, 3))
    makers = {
        'plain': np.ones((1, 1, 3)),
        'car': _wheels(np.ones((8, 40, 3)), 4),
        'facade': _facade(),
        'bricks': _bricks(),
        'leaves': leaves,
        'windows': _wheels(windows, 2),
        'hazard': hazard,
        'panels': _wheels(panels, 2),
        'clothes': clothes,
        'bands': np.where(np.arange(6)[:, None, None] % 3 == 2, 1.6, 1.0) * bands,
    }
    return makers[name], True
