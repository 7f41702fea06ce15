"""Demo, training logs. In: work dirs of runs. Out: their losses and metrics as plots, and what each iteration took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from projects.memfusion.runtime.errors import UserError

_SCALARS = 'vis_data/scalars.json'


@dataclass(frozen=True)
class RunLog:
    """What MMEngine logged of a run.

    Attributes:
        name: what it is called in plots.
        train: lines of training, with `iter`, in order; of a resumed run the later ones.
        val: lines of validation and testing, with `step` (the epoch, or the iteration where that ends a round).
    """

    name: str
    train: Sequence[Mapping[str, Any]]
    val: Sequence[Mapping[str, Any]]

    def curve(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values (n,) of a key; empty where the run has none. A metric is meant by the end of its name, too."""
        for lines, step in ((self.train, 'iter'), (self.val, 'step')):
            found = [(line[step], line[name]) for line in lines for name in line
                     if (name == key or name.endswith(f'/{key}')) and isinstance(line[name], (int, float))]
            if found:
                return np.array([step for step, _ in found]), np.array([value for _, value in found], dtype=np.float64)
        return np.zeros(0), np.zeros(0)

    @property
    def keys(self) -> set[str]:
        """Of all numbers."""
        return {key for line in (*self.train, *self.val) for key, value in line.items() if isinstance(value, (int, float))}


def read_run(path: Path, name: str | None = None) -> RunLog:
    """Reads a work dir, a folder of one start in it, or a scalars.json. A work dir's starts (resumed runs) are put together.

    Raises:
        UserError: naming the file and line, where there is no log, or it cannot be read.
    """
    files = [path] if path.is_file() else sorted(path.glob(f'*/{_SCALARS}')) or sorted(path.glob(_SCALARS))
    if not files:
        raise UserError(f'{path} has no log of a run ({_SCALARS}): give the work dir of tools/train.py or tools/test.py')
    train: dict[int, Mapping[str, Any]] = {}
    val: dict[int, Mapping[str, Any]] = {}
    for file in files:
        for number, text in enumerate(file.read_text().splitlines(), 1):
            try:
                line = json.loads(text)
                if 'iter' in line:
                    train[int(line['iter'])] = line
                elif 'step' in line:
                    val[int(line['step'])] = line
            except (ValueError, TypeError) as error:
                raise UserError(f'{file}, line {number}: not what MMEngine logs ({error})') from error
    return RunLog(name or path.resolve().name, [train[step] for step in sorted(train)], [val[step] for step in sorted(val)])


def read_runs(paths: Sequence[Path], names: Sequence[str] | None = None) -> list[RunLog]:
    """Several; without `names` each is called as its folder is, or by its path where two would be called alike."""
    given = names or [path.resolve().name for path in paths]
    unlike = len(set(given)) == len(given)
    return [read_run(path, name if names or unlike else str(path)) for path, name in zip(paths, given, strict=True)]


def plot_logs(runs: Sequence[RunLog], keys: Sequence[str], path: Path) -> list[str]:
    """One panel per key with a curve per run, as PNG, PDF or SVG by the ending; lines with last and best values and times.

    Args:
        keys: of losses (`loss`, `task0.loss_heatmap`) and metrics (`NDS` means whatever ends in /NDS).

    Raises:
        UserError: for a key that no run has; what they have is named.
    """
    there = sorted(set().union(*(run.keys for run in runs)))
    figure = Figure(figsize=(7, 3 * len(keys)), dpi=110, layout='constrained')
    lines = []
    for axes, key in zip(np.atleast_1d(figure.subplots(len(keys), 1)), keys):
        curves = [(run.name, *run.curve(key)) for run in runs]
        if not any(len(steps) for _, steps, _ in curves):
            raise UserError(f'--keys {key}: no run has logged it; they have {", ".join(there)}')
        for name, steps, values in curves:
            if len(steps):
                axes.plot(steps, values, marker='.', label=name)
                lines.append(f'{name}: {key} last {values[-1]:.4g}, lowest {values.min():.4g}, highest {values.max():.4g}')
        axes.set_ylabel(key)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path)
    for run in runs:
        _, times = run.curve('time')
        if len(times):
            lines.append(f'{run.name}: {times.mean():.4g} s an iteration, {len(run.train)} lines of training')
    return lines
