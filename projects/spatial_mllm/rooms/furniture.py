"""Spatial: made rooms. In: a category. Out: its colour and its parts, boxes in a unit cube that every piece is stretched from.

Sizes and places never depend on the category: else its name alone would tell an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Category:
    """A kind of furniture. `parts` (P, 6): low and high corners x, y, z in [-.5, .5] x [-.5, .5] x [0, 1]; `colour` is RGB."""

    name: str
    colour: tuple[int, int, int]
    parts: np.ndarray


def _category(name: str, colour: tuple[int, int, int], *parts: tuple[float, ...]) -> Category:
    return Category(name, colour, np.array(parts, dtype=np.float32))


CATEGORIES = (
    _category('chair', (214, 39, 40), (-.5, -.5, .38, .5, .5, .5), (-.5, .32, .5, .5, .5, 1), (-.5, -.5, 0, -.3, .5, .38),
              (.3, -.5, 0, .5, .5, .38)),
    _category('table', (140, 86, 20), (-.5, -.5, .86, .5, .5, 1), (-.18, -.18, .1, .18, .18, .86), (-.4, -.4, 0, .4, .4, .1)),
    _category('stool', (255, 140, 0), (-.5, -.5, .8, .5, .5, 1), (-.42, -.42, 0, -.18, .42, .8), (.18, -.42, 0, .42, .42, .8)),
    _category('cabinet', (31, 60, 200), (-.5, -.5, 0, .5, .5, 1)),
    _category('shelf', (120, 40, 180), (-.5, .35, 0, .5, .5, 1), (-.5, -.5, .05, .5, .35, .18), (-.5, -.5, .45, .5, .35, .58),
              (-.5, -.5, .87, .5, .35, 1)),
    _category('lamp', (250, 225, 20), (-.4, -.4, 0, .4, .4, .1), (-.14, -.14, .1, .14, .14, .6), (-.5, -.5, .6, .5, .5, 1)),
    _category('plant', (20, 140, 40), (-.3, -.3, 0, .3, .3, .35), (-.5, -.5, .35, .5, .5, 1)),
    _category('fridge', (0, 200, 220), (-.5, -.5, 0, .5, .5, .62), (-.48, -.48, .66, .48, .48, 1)),
    _category('heater', (245, 60, 200), (-.5, -.5, .08, -.22, .5, 1), (-.14, -.5, .08, .14, .5, 1), (.22, -.5, .08, .5, .5, 1)),
    _category('bin', (20, 20, 30), (-.42, -.42, 0, .42, .42, .85), (-.5, -.5, .85, .5, .5, 1)),
    _category('speaker', (150, 220, 90), (-.5, -.5, .12, .5, .5, 1), (-.3, -.3, 0, .3, .3, .12)),
    _category('desk', (110, 0, 30), (-.5, -.5, .82, .5, .5, 1), (-.5, -.5, 0, -.34, .5, .82), (.34, -.5, 0, .5, .5, .82)),
)
NAMES = tuple(category.name for category in CATEGORIES)
