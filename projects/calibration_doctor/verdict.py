"""Doctor. In: what witnesses say about hypotheses, problems found in the files. Out: a verdict per camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .edge_scores import Witnesses
from .hypotheses import PARAMETERS

_RESAMPLES = 200
_SURE_SHARE = 0.8  # of the resamples that must lie beyond the tolerance


@dataclass(frozen=True)
class Limits:
    """What is tolerated in one parameter, and how widely resamples may scatter before it counts as not observable."""

    tolerance: float
    max_spread: float
    unit: str


@dataclass(frozen=True)
class Estimate:
    """Where the score peaks.

    Attributes:
        fault: by how much the file is off; spread: half the width that holds two thirds of the resamples.
        sure: share of the resamples that are beyond the tolerance on the side of `fault`.
        observable: whether the frames tell; reason: why not.
    """

    name: str
    fault: float
    spread: float
    sure: float
    limits: Limits
    observable: bool = True
    reason: str = ''

    @property
    def is_faulty(self) -> bool:
        return self.observable and abs(self.fault) > self.limits.tolerance and self.sure >= _SURE_SHARE

    def text(self) -> str:
        label = self.name.rsplit('_', 1)[0]
        if not self.observable:
            return f'{label} not observable' + (f' ({self.reason})' if self.reason else '')
        scale, unit = (100.0, '%') if self.name == 'zoom' else (1.0, self.limits.unit)
        digits = 0 if unit == 'ms' else 1 if unit == '%' else 2
        return f'{label} {self.fault * scale:+.{digits}f} +-{self.spread * scale:.{digits}f} {unit}'


@dataclass
class CameraVerdict:
    """What is known about one camera.

    Attributes:
        problems: sentences; any makes the camera faulty.
        estimates: from the images.
        fit, file_fit: score at the peak and at the file's values, in standard deviations.
        surface: (yaw, pitch) scores for the picture.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    fit: float = float('nan')
    file_fit: float = float('nan')
    num_witnesses: int = 0
    surface: npt.NDArray[np.float64] | None = None

    @property
    def is_faulty(self) -> bool:
        return bool(self.problems)

    def line(self) -> str:
        """One line of the report."""
        facts = [*self.problems, *(estimate.text() for estimate in self.estimates if not estimate.is_faulty)]
        if np.isfinite(self.fit):
            facts.append(f'edge fit {self.fit:.1f} (file {self.file_fit:.1f}, {self.num_witnesses} witnesses)')
        return f'{self.name}: {"FAULTY" if self.is_faulty else "ok"}: ' + '; '.join([*facts, *self.notes])


def fit_scores(witnesses: Witnesses) -> npt.NDArray[np.float64]:
    """(*grid.shape) sums over the witnesses in units of their standard deviation, as if hypotheses meant nothing."""
    values = witnesses.values.astype(np.float64)
    if not len(values):
        return np.zeros(witnesses.grid.shape)
    spread = np.sqrt((values ** 2).sum(axis=0).mean())
    return np.asarray(values.sum(axis=0) / max(spread, 1e-9))


def resampled_peaks(witnesses: Witnesses, names: Sequence[str], seed: int = 0) -> dict[str, npt.NDArray[np.float64]]:
    """(_RESAMPLES,) values of each parameter at the peak, when witnesses are drawn anew with replacement (bootstrap)."""
    flat = witnesses.values.reshape(len(witnesses.values), -1)
    count = len(flat)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _RESAMPLES).astype(np.float32)
    cells = np.unravel_index((draws @ flat).argmax(axis=1), witnesses.grid.shape)
    return {name: witnesses.grid.axis(name)[cells[PARAMETERS.index(name)]] for name in names}


def estimate(name: str, peaks: npt.NDArray[np.float64], limits: Limits) -> Estimate:
    """From the corrections at which resamples peak; the file's fault is their opposite."""
    fault = -float(np.median(peaks)) + 0.0
    low, high = np.percentile(peaks, [16, 84])
    spread = float(high - low) / 2
    sure = float((np.sign(fault) * -peaks > limits.tolerance).mean())
    return Estimate(name, fault, spread, sure, limits, observable=spread <= limits.max_spread)


def add_problems(verdicts: Mapping[str, CameraVerdict], problems: Mapping[str, Sequence[str]]) -> None:
    """Files problems under their cameras."""
    for name, found in problems.items():
        verdicts[name].problems.extend(text for text in found if text not in verdicts[name].problems)
