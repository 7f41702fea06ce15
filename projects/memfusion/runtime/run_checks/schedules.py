"""Checks of a run, schedules. In: schedulers' configs, the run's length. Out: the same schedulers, as long as the run.

A schedule is written for a number of epochs. MMEngine neither stretches nor cuts it: a longer run dies at its end (OneCycle) or
goes on at its last rate, a shorter one stops in the middle of it. Here it follows the run, and a line says so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .walk import is_kind

_ONE_CYCLE, _COSINE, _RESTARTS = 'OneCycleParamScheduler', 'CosineAnnealingParamScheduler', 'CosineRestartParamScheduler'
_LINEAR, _CONSTANT, _STEPS = 'LinearParamScheduler', 'ConstantParamScheduler', 'MultiStepParamScheduler'
_STEP, _EXPONENTIAL, _POLY = 'StepParamScheduler', 'ExponentialParamScheduler', 'PolyParamScheduler'
_KNOWN = (_ONE_CYCLE, _COSINE, _RESTARTS, _LINEAR, _CONSTANT, _STEPS, _STEP, _EXPONENTIAL, _POLY)
_PLACES = ('begin', 'end', 'T_max', 'total_steps', 'milestones', 'periods', 'step_size')
"""Settings that are times; all change by the same factor."""


@dataclass(frozen=True)
class RunLength:
    """How long a run is: its steps, and the steps of an epoch (data loader's length)."""

    num_steps: int
    epoch_steps: int

    def say(self, steps: float) -> str:
        """A number of steps in words: epochs where they are whole."""
        epochs = steps / self.epoch_steps
        whole = abs(epochs - round(epochs)) < 1e-6 and round(epochs) > 0
        return f'{round(epochs)} epoch{"s" * (round(epochs) != 1)}' if whole else f'{steps:g} iterations'


def follow_run(schedulers: Any, run: RunLength, path: str = 'param_scheduler') -> tuple[Any, list[str]]:
    """The schedulers in a run of this length, and what was changed, in words.

    A chain of schedulers whose last one ends before or after the run is stretched or shrunk as a whole, so that it ends with
    the run: warm-up, peaks and milestones keep their share of it. Schedulers that open a run (a warm-up and nothing after it)
    and those without an end (StepLR, ExponentialLR) say no length and stay.

    Args:
        schedulers: what `param_scheduler` may be: a config, a list of them, or such by optimizer's name. Built schedulers
            are returned as they are.
        run: the run's length.
        path: for messages.

    Raises:
        UserError: naming the key, for a schedule that does not say its length and cannot be meant for this run.
    """
    if isinstance(schedulers, Mapping) and 'type' not in schedulers:
        changed = {name: follow_run(part, run, f'{path}.{name}') for name, part in schedulers.items()}
        return ({name: part for name, (part, _) in changed.items()}, [line for _, lines in changed.values() for line in lines])
    single = not isinstance(schedulers, (list, tuple))
    chain = [schedulers] if single else list(schedulers)
    if not chain or not all(isinstance(part, Mapping) for part in chain):
        return schedulers, []
    names = [path if single else f'{path}.{number}' for number in range(len(chain))]
    length = _length(chain, names, run)
    if length is None or abs(length - run.num_steps) < 1:
        return schedulers, _warnings(chain, names, run)
    factor = run.num_steps / length
    followed = [_scaled(part, name, factor, run) for part, name in zip(chain, names)]
    line = (f'{path}: written for {run.say(length)}, the run has {run.say(run.num_steps)}: every time in it is multiplied by '
            f'{factor:.4g}, so that the schedule ends with the run')
    return followed[0] if single else followed, [line]


def _length(chain: Sequence[Mapping[str, Any]], names: Sequence[str], run: RunLength) -> float | None:
    """Steps at which the last scheduler ends that is more than a warm-up; None where none says."""
    ends = []
    for part, name in zip(chain, names):
        unit = _unit(part, run)
        end = _end(part, unit)
        if is_kind(part, _COSINE) and end is None and part.get('T_max') is not None:
            end = float(part.get('begin', 0) + part['T_max']) * unit
            if end < run.num_steps - 1:
                raise UserError(f'{name}: T_max={part["T_max"]} and no end: after {run.say(end)} of {run.say(run.num_steps)} '
                                'its value would climb back. Write end too (it is then stretched), or CosineRestartLR for '
                                'restarts')
        if is_kind(part, _STEPS) and end is None:
            late = [one for one in part.get('milestones', ()) if one * unit >= run.num_steps]
            if late:
                raise UserError(f'{name}: milestones={list(part["milestones"])}, but the run ends after '
                                f'{run.say(run.num_steps)}: write milestones within it, or end=LENGTH, the length that they '
                                'are for, which is then shrunk')
        if end is not None and not _opens(part):
            ends.append(end)
    return max(ends, default=None)


def _unit(part: Mapping[str, Any], run: RunLength) -> int:
    return run.epoch_steps if part.get('by_epoch', True) else 1


def _end(part: Mapping[str, Any], unit: int) -> float | None:
    """Steps at which a scheduler ends."""
    if is_kind(part, _ONE_CYCLE) and part.get('total_steps') is not None:
        if part.get('end') not in (None, part.get('begin', 0) + part['total_steps']):
            raise UserError(f'OneCycleLR: end={part["end"]} cuts a cycle of total_steps={part["total_steps"]}: leave end out')
        return float(part.get('begin', 0) + part['total_steps']) * unit
    if is_kind(part, _RESTARTS) and 'periods' in part and 'end' not in part:
        return float(part.get('begin', 0) + sum(part['periods'])) * unit
    end = part.get('end')
    # MMEngine's own "never" is int(1e9).
    return None if end is None or math.isinf(end) or end >= int(1e9) else float(end) * unit


def _opens(part: Mapping[str, Any]) -> bool:
    """Whether this only leads up to the optimizer's own value, which then stays."""
    if is_kind(part, _LINEAR):
        return float(part.get('end_factor', 1.0)) >= float(part.get('start_factor', 1 / 3))
    return is_kind(part, _CONSTANT) and not part.get('begin')


def _scaled(part: Mapping[str, Any], name: str, factor: float, run: RunLength) -> dict[str, Any]:
    """The scheduler with all its times multiplied, in whole iterations."""
    if not is_kind(part, *_KNOWN):
        raise UserError(f'{name}: {part.get("type")} does not say how it follows a run of {run.say(run.num_steps)}: write its '
                        'times for this run')
    times = factor * _unit(part, run)
    changed = {key: value for key, value in part.items() if key != 'convert_to_iter_based'}
    changed['by_epoch'] = False
    for key in _PLACES:
        value = part.get(key)
        if key == 'periods' and value:
            ends = [round(end * times) for end in itertools.accumulate(value)]
            changed[key] = [max(1, end - start) for start, end in zip([0, *ends], ends)]
        elif isinstance(value, (list, tuple)):  # milestones, all within the run
            changed[key] = [max(1, math.floor(one * times + 1e-6)) for one in value]
        elif value is not None and value < int(1e9):
            changed[key] = round(value * times) if key == 'begin' else max(1, math.ceil(value * times - 1e-6))
    start = changed.get('begin', 0)
    if 'end' in changed:
        changed['end'] = max(changed['end'], start + 1)
        if part.get('T_max') is not None and part.get('begin', 0) + part['T_max'] == part['end']:
            changed['T_max'] = changed['end'] - start  # whatever rounding did to either
    if is_kind(part, _EXPONENTIAL) and 'gamma' in part:
        changed['gamma'] = part['gamma'] ** (1 / times)
    return changed


def _warnings(chain: Sequence[Mapping[str, Any]], names: Sequence[str], run: RunLength) -> list[str]:
    """Warm-ups that the run does not see the end of."""
    late = [(name, end) for part, name in zip(chain, names) if (end := _end(part, _unit(part, run))) is not None
            and end > run.num_steps]
    return [f'{name}: ends after {run.say(end)}, the run after {run.say(run.num_steps)}: it does not get there'
            for name, end in late]


def check_resumed_length(meta: Any, length: int, by_epoch: bool, path: str, schedule: Any) -> None:
    """Raises UserError where a run is resumed that was to be shorter or longer: its schedule is saved with it.

    Args:
        meta: what the checkpoint knows of its run, its message hub's 'runtime_info'.
        length: epochs or iterations of the run that goes on.
        by_epoch: which of the two.
        path: the checkpoint.
        schedule: the config's param_scheduler; without one the length does not matter.
    """
    name = 'max_epochs' if by_epoch else 'max_iters'
    was = meta.get(name) if isinstance(meta, Mapping) else None
    if not schedule or not isinstance(was, int) or was == length:
        return
    raise UserError(f'{path}: is of a run of {name}={was}, and its schedule was saved with it; train_cfg.{name}={length} '
                    f'cannot go on with that. Set train_cfg.{name}={was}, or start a new run from its weights: '
                    f'load_from={path} and no --resume')
