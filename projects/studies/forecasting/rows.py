"""Study. What is compared: rows of what a forecast is made of, with the seeds and the budget of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from projects.memfusion.runtime.errors import UserError
from projects.studies.memory.rows import Budget

NEIGHBOURS = 'neighbours'


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of its result files.
        title: in the table.
        seeds: how many it is trained with.
        modes: M.
        pooling: how memory is pooled; None is kinematics alone, NEIGHBOURS has no memory but the truth.
        world: of WORLDS: what the rasters show.
        devkit: the devkit's baseline that it is; nothing is trained then.
    """

    name: str
    title: str
    seeds: int = 1
    modes: int = 5
    pooling: str | None = None
    world: str = 'map'
    devkit: str | None = None

    @property
    def has_memory(self) -> bool:
        """Whether its features are those of a memory."""
        return self.pooling not in (None, NEIGHBOURS)


ROWS = (
    Row('constant_velocity', 'constant velocity and heading (devkit)', devkit='ConstantVelocityHeading'),
    Row('physics_oracle', 'physics oracle (devkit)', devkit='PhysicsOracle'),
    Row('kinematics', 'GRU on kinematics', seeds=2),
    Row('neighbours', '+ the true leader and person ahead', seeds=2, pooling=NEIGHBOURS),
    Row('around', '+ memory with map, around', seeds=2, pooling='around'),
    Row('masked', '+ memory with map, masked', seeds=2, pooling='masked'),
    Row('mean', '+ memory with map, mean over everything', seeds=2, pooling='mean'),
    Row('center', '+ memory with map, centre', pooling='center'),
    Row('kinematics_m1', 'GRU on kinematics, M = 1', modes=1),
    Row('around_m1', '+ memory with map, around, M = 1', modes=1, pooling='around'),
    Row('kinematics_m10', 'GRU on kinematics, M = 10', modes=10),
    Row('around_m10', '+ memory with map, around, M = 10', modes=10, pooling='around'),
    Row('around_points', '+ memory of points alone, around', pooling='around', world='plain'),
    Row('masked_points', '+ memory of points alone, masked', pooling='masked', world='plain'),
)
WORLDS = dict(plain='configs/forecasting/study_tiny-synthetic.py', map='configs/forecasting/study-map_tiny-synthetic.py')
POOLINGS = ('around', 'masked', 'center', 'mean')
"""What is stored of a memory."""


MEMORY = Budget(iterations=0, clips=4, lr=5e-4)
"""Clips a step, of every memory; of no iterations it stays as it was drawn. At 2e-3 its sensory state is at its bounds within
20 steps."""
HEAD = Budget(iterations=3000, clips=128)
"""Agents a step, of every row's head on the stored features."""
NARROW = dict(feature_bottleneck=8, feature_dropout=0.3)
"""How heads take the features of memory; chosen on the validation scenes of the other worlds."""


def planned(names: Sequence[str] | None, seeds: Sequence[int] | None) -> list[tuple[Row, int]]:
    """Rows and seeds in the order of their running: all first seeds first.

    Raises:
        UserError: naming an unknown row.
    """
    unknown = sorted(set(names or ()) - {row.name for row in ROWS})
    if unknown:
        raise UserError(f'no row {unknown[0]!r}; there are {", ".join(row.name for row in ROWS)}')
    chosen = [row for row in ROWS if names is None or row.name in names]
    return [(row, seed) for seed in (range(max(row.seeds for row in ROWS)) if seeds is None else seeds)
            for row in chosen if seeds is not None or seed < row.seeds]
