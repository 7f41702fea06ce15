"""Learning rates of the published query detectors, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import scheduler as schedulers_of

STEPS = 100
"""Of an epoch."""


def rates(repo, schedule, multipliers=(1.0, 0.1)):
    """(steps, groups) learning rates and (steps,) first betas over the whole schedule."""
    config = Config.fromfile(repo / f'configs/_base_/schedules/{schedule}.py')
    base = config.optim_wrapper.optimizer.lr
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=base * factor) for factor in multipliers]
    optimizer = torch.optim.AdamW(groups, lr=base)
    schedulers = []
    for settings in config.param_scheduler:
        settings = settings.to_dict()
        kind = getattr(schedulers_of, settings.pop('type'))
        if settings.pop('convert_to_iter_based', False):
            schedulers.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=STEPS, **settings))
        else:
            schedulers.append(kind(optimizer, **settings))
    found, betas = [], []
    for _ in range(config.train_cfg.max_epochs * STEPS):
        found.append([group['lr'] for group in optimizer.param_groups])
        betas.append(optimizer.param_groups[0]['betas'][0])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(found, dtype=torch.float64), betas, base


def test_cosine_after_a_warm_up(repo):
    found, _, base = rates(repo, 'cosine_24e')
    assert base == 2e-4 and len(found) == 24 * STEPS
    assert torch.allclose(found[:, 1], 0.1 * found[:, 0])
    assert float(found[0, 0]) == pytest.approx(base / 3)
    for step in (500, len(found) // 2, len(found) - 1):
        share = (1 + math.cos(math.pi * step / len(found))) / 2
        assert float(found[step, 0]) == pytest.approx(base * (1e-3 + (1 - 1e-3) * share), rel=2e-2)


@pytest.mark.parametrize('epochs', [36, 60, 90])
def test_longer_cosines_end_with_their_runs(epochs, repo):
    short, long = (Config.fromfile(repo / f'configs/_base_/schedules/cosine_{count}e.py') for count in (24, epochs))
    assert long.param_scheduler[0] == short.param_scheduler[0]
    assert long.param_scheduler[1] == {**short.param_scheduler[1], 'T_max': epochs, 'end': epochs}
    assert long.train_cfg == {**short.train_cfg, 'max_epochs': epochs, 'val_interval': epochs}


def test_the_cycle_of_cmt(repo):
    found, betas, base = rates(repo, 'cyclic_cmt_20e', multipliers=(1.0, 0.01))
    assert base == 1.4e-4 and torch.allclose(found[:, 1], 0.01 * found[:, 0], rtol=1e-6)
    peak = 8 * STEPS
    assert int(found[:, 0].argmax()) in range(peak - 2, peak + 3)
    assert float(found[0, 0]) == pytest.approx(base) and float(found[peak, 0]) == pytest.approx(6 * base, rel=1e-3)
    assert float(found[-1, 0]) == pytest.approx(1e-4 * base, abs=1e-3 * base)
    assert betas[0] == pytest.approx(0.9) and betas[peak] == pytest.approx(0.9 * 0.85 / 0.95, rel=1e-3)
    assert betas[-1] == pytest.approx(0.9, rel=1e-3)
