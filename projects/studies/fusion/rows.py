"""Study. What is compared: one row, one config; which classes need cameras; and the budget, the same for every row."""

from __future__ import annotations

from projects.studies.memory import rows as memory_rows
from projects.studies.memory.rows import Budget, Row

PRETRAIN = 'configs/study/fusion_pretrain.py'
LIDAR_ONLY = 'fusion_lidar_only'
FUSED = 'fusion_futrpp'
NOISE_TRAINED = 'fusion_futrpp_noise'
ROWS = (
    Row(LIDAR_ONLY, 'LiDAR only', 'method'),
    Row('fusion_futr', 'FuTr', 'method'),
    Row(FUSED, 'FuTr++', 'method'),
    Row('fusion_futrpp_no-boxes', 'FuTr++, no 2-D boxes', 'control'),
    Row(NOISE_TRAINED, 'FuTr++, trained with 2 deg and 10 cm', 'noise'),
)
SWEPT = (FUSED, NOISE_TRAINED)
"""Rows that are tested with wrong calibrations and false images."""

LOOKALIKES = ('truck', 'construction_vehicle', 'bicycle', 'motorcycle')
"""Two pairs that differ in paint only."""
RANGE_M = 25.0
"""AP of a class counts what is nearer than this, all of which lies within the detectors' range."""
WORLDS = 3
SWEPT_WORLDS = 2
"""Worlds that rows train and are tested in; the noise sweep, the longest part, takes the first ones."""
BUDGET = Budget(iterations=450, clips=4, lr=2e-3, variants=3)


def choose_rows(names: list[str] | None) -> tuple[Row, ...]:
    """As the memory study's, of this study's rows."""
    return memory_rows.choose_rows(names, ROWS)
