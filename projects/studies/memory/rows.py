"""Study. What is compared: one row, one config of at most ten lines; and the budget, the same for every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from projects.memfusion.runtime.errors import UserError

FOLDER = 'configs/study'
PLAIN = 'plain'
BEST = 'residual'


@dataclass(frozen=True)
class Row:
    """name: of the config in configs/study; title: in the table; group: which question it answers."""

    name: str
    title: str
    group: str

    @property
    def config(self) -> str:
        """Path of the row's config."""
        return f'{FOLDER}/{self.name}.py'


AnyRow = TypeVar('AnyRow', bound=Row)


@dataclass(frozen=True)
class Budget:
    """What every row trains with: iterations of `clips` clips, each with one labelled frame (its last).

    Attributes:
        iterations: optimizer steps.
        clips: clips a step.
        lr: peak of the one-cycle schedule.
        variants: augmented passes over the training frames in the cache.
    """

    iterations: int = 500
    clips: int = 4
    lr: float = 2e-3
    variants: int = 4


ROWS = (
    Row(PLAIN, 'plain, no memory', 'method'),
    Row('stack', 'stack of 4, ego 1', 'method'),
    Row('convgru', 'ConvGRU, ego 1', 'method'),
    Row('gate', 'gate, ego 1', 'method'),
    Row('residual', 'residual, ego 1', 'method'),
    Row('concat', 'concat, ego 1', 'method'),
    Row('residual_allcells', 'residual, ego 1, empty cells answer too', 'method'),
    Row('residual_ego0', 'residual, ego none', 'ego motion'),
    Row('residual_ego12', 'residual, ego 1+2', 'ego motion'),
    Row('residual_ego123', 'residual, ego 1+2+3', 'ego motion'),
    Row('residual_seq1', 'residual, seq_len 1', 'clip length'),
    Row('residual_seq2', 'residual, seq_len 2', 'clip length'),
    Row('residual_seq8', 'residual, seq_len 8 (gradient through 4)', 'clip length'),
)


def choose_rows(names: list[str] | None, rows: tuple[AnyRow, ...]) -> tuple[AnyRow, ...]:
    """The rows with these names, in table order; None is all.

    Raises:
        UserError: naming rows that do not exist.
    """
    known = [row.name for row in rows]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UserError(f'--rows: there are no rows {unknown}; there are {known}')
    return tuple(row for row in rows if names is None or row.name in names)
