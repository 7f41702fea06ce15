"""Study. In: the stored files. Out: each row's scores over its seeds, its break-even and its cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from projects.studies.fusion.results import average
from projects.studies.robustness.report import break_even
from projects.studies.robustness.run import Scores

from .rows import LIDAR_ONLY, ROTATIONS_DEG, SWEPT_WORLDS, Compared
from .sweep import OTHER, rotation_name


@dataclass(frozen=True)
class Found:
    """What is known of a row.

    Attributes:
        seeds: those that are finished.
        steps: optimizer steps of each, with the frames of a step.
        scores: means over the worlds, of each.
        swept: {condition: means over the swept worlds} of each, with the row's own as 'clean'.
    """

    seeds: tuple[int, ...] = ()
    steps: tuple[str, ...] = ()
    scores: tuple[Scores, ...] = ()
    swept: tuple[dict[str, Scores], ...] = field(default=())

    def of(self, name: str) -> list[float]:
        """One score, of each seed."""
        return [scores[name] for scores in self.scores]


def result_path(results: Path, row: str, seed: int) -> Path:
    """Where a row's scores are stored."""
    return results / f'{row}-{seed}.json'


def cost_path(results: Path, row: str) -> Path:
    """Where a row's cost is stored."""
    return results / f'{row}-cost.json'


def read_row(results: Path, row: Compared, seeds: Sequence[int]) -> Found:
    """The row's finished seeds; none where it was not run."""
    parts = [(seed, json.loads(path.read_text())) for seed in seeds
             if (path := result_path(results, row.name, seed)).is_file()]
    return Found(tuple(seed for seed, _ in parts), tuple(f'{part["steps"]} x {part["frames_a_step"]}' for _, part in parts),
                 tuple(average(part['worlds']) for _, part in parts), tuple(_swept(part) for _, part in parts))


def _swept(part: dict[str, Any]) -> dict[str, Scores]:
    own = [{name: world[name] for name in ('mAP', 'NDS')} for world in part['worlds'][:SWEPT_WORLDS]]
    return {'clean': average(own), **{name: average(worlds) for name, worlds in part.get('sweep', {}).items()}}


def read_all(results: Path, rows: Sequence[Compared], seeds: Sequence[int]) -> dict[str, Found]:
    """{row: what is known of it}."""
    return {row.name: read_row(results, row, seeds) for row in rows}


def read_cost(results: Path, row: str) -> dict[str, float] | None:
    """What a frame costs at full size; None where it was not counted."""
    path = cost_path(results, row)
    return json.loads(path.read_text()) if path.is_file() else None


def shared(found: Found, floor: Found) -> list[tuple[int, int]]:
    """Positions of the seeds that both have."""
    return [(found.seeds.index(seed), floor.seeds.index(seed)) for seed in found.seeds if seed in floor.seeds]


def gains(found: Found, floor: Found, name: str) -> list[float]:
    """A score less that of LiDAR alone, of each seed that both have."""
    return [found.scores[i][name] - floor.scores[j][name] for i, j in shared(found, floor)]


def break_even_deg(found: dict[str, Found], row: str) -> float | None:
    """Standard deviation of the cameras' rotation, in degrees, at which the row's mAP is down to that of LiDAR alone: 0 where
    it is no better to begin with, None where it stays better. From means over the seeds that both have.

    Raises:
        ValueError: where there is no such seed.
    """
    own, floor = found[row], found[LIDAR_ONLY]
    pairs = shared(own, floor)
    if not pairs:
        raise ValueError(f'{row}: no seed is finished of both this row and {LIDAR_ONLY}')
    values = [mean(own.swept[i][name]['mAP'] for i, _ in pairs) for name in ('clean', *map(rotation_name, ROTATIONS_DEG))]
    return break_even((0.0, *ROTATIONS_DEG), values, mean(floor.swept[j]['clean']['mAP'] for _, j in pairs))


def lost_to_other_images(found: Found) -> list[float]:
    """mAP with the frame's own images less that with another scene's, of each seed: above 0.5 the images are used."""
    return [swept['clean']['mAP'] - swept[OTHER]['mAP'] for swept in found.swept if OTHER in swept]
