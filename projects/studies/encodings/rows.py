"""Study. What is compared: how two detectors know where cameras look; the conditions of their tests; the budget."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from mmengine.config import Config

from projects.memfusion.runtime.errors import UserError
from projects.studies.memory.rows import Budget

ACROSS = 'P1/2 I1/2'
"""Between cells or queries and cameras: rows and columns of images mean nothing to the others."""


@dataclass(frozen=True)
class Encoded:
    """A row of the table.

    Attributes:
        name: of the result files.
        title: in the table.
        seeds: how many seeds the row is run with, from 0.
        geometry: what is added to the image tokens: 'ray', 'frustum' or 'none', which is their place in their image alone.
        among: encoding of the attention among FuTr++'s camera tokens; None is none.
        across: encoding between FuTr++'s cells and tokens, and between queries and tokens; None is none.
    """

    name: str
    title: str
    seeds: int = 2
    geometry: str = 'none'
    among: Mapping[str, Any] | None = None
    across: Mapping[str, Any] | None = None

    def told(self, design: str) -> dict[str, Any]:
        """What the design's config is changed by."""
        if design == QUERY:
            return {'model.pts_bbox_head.images.geometry': self.geometry,
                    'model.pts_bbox_head.transformer.encoding': _plain(self.across)}
        return {'model.fusion_layer.geometry.kind': 'pixel' if self.geometry == 'none' else self.geometry,
                'model.fusion_layer.tokens.self_attn.encoding': _plain(self.among),
                'model.fusion_layer.sample.encoding': _plain(self.across)}


def _plain(encoding: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if encoding is None else dict(encoding)


ROWS = (  # what is run first comes first
    Encoded('none', 'none'),
    Encoded('ray', 'ray, added', geometry='ray'),
    Encoded('prope', 'PRoPE', among=dict(type='PRoPE'), across=dict(type='PRoPE', layout=ACROSS)),
    Encoded('frustum', 'frustum, added', geometry='frustum'),
    Encoded('gta', 'GTA', 1, among=dict(type='GTA'), across=dict(type='GTA', layout=ACROSS)),
    Encoded('cape6', 'CaPE', 1, among=dict(type='CaPE6'), across=dict(type='CaPE6')),
    Encoded('thwp', 'THW+P', 1, among=dict(type='THW+P'), across=dict(type='THW+P', layout='P1/4 I3/4')),
    Encoded('alibi', 'Pose-ALiBi', 1, among=dict(type='PoseALiBi'), across=dict(type='PoseALiBi')),
)
FUSION, QUERY = 'futrpp', 'petrv2'
DESIGNS = {FUSION: 'FuTr++, cells that read tokens', QUERY: 'PETRv2, queries of its decoder'}
"""Name -> title; configs/study/encodings_NAME.py."""
PAIRS = ('trucks', 'cycles')
"""Of look-alikes, in the order of LOOKALIKES."""
CONDITIONS = {'own': 'own rig', 'noise': '4 deg wrong', 'rig': 'unseen rig', 'other': "another frame's images"}
NOISE_DEG = 4.0
"""Standard deviation of each camera's wrong rotation."""
BUDGET = Budget(iterations=200, clips=4, lr=2e-3, variants=3)
IMAGE_VARIANTS = 2
"""Augmented views of each training frame's images that are stored."""


def planned(names: list[str] | None = None, seeds: list[int] | None = None) -> list[tuple[Encoded, int]]:
    """Rows and seeds in the order in which they are run: rows of two seeds first.

    Raises:
        UserError: naming rows that do not exist.
    """
    known = [row.name for row in ROWS]
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f'--rows: there are no rows {unknown}; there are {known}')
    most = max(row.seeds for row in ROWS)
    order = sorted((-row.seeds, seed, number) for number, row in enumerate(ROWS) for seed in range(most))
    plan = [(ROWS[number], seed) for _, seed, number in order]
    return [(row, seed) for row, seed in plan if (names is None or row.name in names)
            and (seed < row.seeds if seeds is None else seed in seeds)]


def config_of(design: str) -> str:
    """Path of the design's config."""
    return f'configs/study/encodings_{design}.py'


def changed(cfg: Config, row: Encoded, design: str) -> Config:
    """The design's config as the row has it."""
    cfg = copy.deepcopy(cfg)
    for key, value in row.told(design).items():
        *path, name = key.split('.')
        reduce(getitem, path, cfg)[name] = value  # merging could not put a dict where the base says None
    return cfg
