"""Study. What is compared: a row, its two configs (to train, to count the cost of), and what others published of its like."""

from __future__ import annotations

from dataclasses import dataclass

from projects.studies.memory import rows as memory_rows
from projects.studies.memory.rows import Budget, Row

FULL = '_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d'


@dataclass(frozen=True)
class Compared(Row):
    """A row of the table.

    Attributes:
        full: the config at full size (256x704, R50, BEV 128) whose cost is counted.
        published: nuScenes val mAP / NDS as others published them, with what they were reached with; '' where there are none.
        lr: peak learning rate.
    """

    full: str = ''
    published: str = ''
    lr: float = 2e-3

    @property
    def writes_bev(self) -> bool:
        """Whether it fuses into the BEV, so that the head of LiDAR alone reads it; else its own queries make the boxes."""
        return self.group != 'queries'


def _fusion(name: str, title: str, leaf: str = '', published: str = '', group: str = 'BEV') -> Compared:
    return Compared(f'fusion_{name}', title, group, f'configs/fusion/{leaf or name}{FULL}.py', published)


def _queries(name: str, title: str, leaf: str, published: str) -> Compared:
    return Compared(f'query_{name}', f'{title} (queries)', 'queries', f'configs/query/{leaf}.py', published, lr=1e-3)


LIDAR_ONLY = 'fusion_lidar_only'
ROWS = (  # what is run first comes first
    Compared(LIDAR_ONLY, 'LiDAR only', 'LiDAR',
             'configs/fusion/lidar-only_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py',
             '50.0 / 60.7 (CenterPoint, pillars)'),
    _fusion('futr', 'FuTr'),
    _fusion('futrpp', 'FuTr++', published='68.5 / 71.4 (BEVFusion of MIT, LiDAR and cameras)'),
    _fusion('fastbev', 'FastBEV'),
    _fusion('bevformerlite', 'BEVFormer-Lite', 'bevformer-lite'),
    _fusion('petrv2fusion', 'PETRv2 as a fusion', 'petrv2-fusion', '41.0 / 50.3 (PETRv2, cameras alone, V2-99, 320x800)'),
    _fusion('sparsebev-notes', 'SparseBEV of the notes', published='- / 55.6 (SparseBEV, cameras alone, R50, 8 frames)'),
    _fusion('futrpp-film', 'FuTr++, FiLM only'),
    _fusion('futrpp-sample', 'FuTr++, sampling only'),
    _queries('sparsebev', 'SparseBEV', 'sparsebev_r50_pillar02_second_secfpn_8xb1-cosine-24e_nus-3d',
             '- / 55.6 (cameras alone, R50, 8 frames)'),
    _queries('streampetr', 'StreamPETR', 'streampetr_r50_pillar02_second_secfpn_8xb2-cosine-24e_nus-3d',
             '48.2 / 57.1 (cameras alone, V2-99, 320x800)'),
    _queries('petrv2', 'PETRv2', 'petrv2_r50_pillar02_second_secfpn_8xb1-cosine-24e_nus-3d',
             '41.0 / 50.3 (cameras alone, V2-99, 320x800)'),
    _queries('cmt', 'CMT', 'cmt_r50_256x704_8xb4-cyclic-20e_nus-3d', '70.3 / 72.9 (LiDAR and cameras, V2-99, 640x1600)'),
)
BUDGET = Budget(iterations=150, clips=4, lr=2e-3, variants=3)
"""Optimizer steps that every row gets unless --budget says otherwise, of so many frames each."""
SWEPT_WORLDS = 1
"""Worlds that rows are tested in with wrong calibrations and another scene's images: the first ones."""
ROTATIONS_DEG = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Standard deviations of the rotation of each camera about each axis, by itself."""


def choose_rows(names: list[str] | None) -> tuple[Compared, ...]:
    """As the memory study's, of this study's rows."""
    chosen = {row.name for row in memory_rows.choose_rows(names, ROWS)}
    return tuple(row for row in ROWS if row.name in chosen)
