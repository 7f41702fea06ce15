"""A schedule is as long as its run: its end is the run's end, whichever length it was written for."""

import math

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from projects.memfusion.runtime import UserError
from projects.memfusion.runtime.run_checks.schedules import RunLength, check_resumed_length, follow_run

EPOCH = 5
CYCLIC = [
    dict(type='CosineAnnealingLR', T_max=8, eta_min=1e-3, begin=0, end=8, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=12, eta_min=1e-8, begin=8, end=20, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingMomentum', T_max=8, eta_min=0.85 / 0.95, begin=0, end=8, by_epoch=True,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingMomentum', T_max=12, eta_min=1, begin=8, end=20, by_epoch=True, convert_to_iter_based=True)]
ONE_CYCLE = [dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.3, by_epoch=True, convert_to_iter_based=True, total_steps=20)]
STEPS = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=20),
         dict(type='MultiStepLR', begin=0, end=20, by_epoch=True, milestones=[16, 19], gamma=0.1)]
POLY = [dict(type='PolyLR', eta_min=1e-6, begin=0, end=20, by_epoch=True)]
PHASE = [dict(type='LinearLR', start_factor=0.1, begin=0, end=5, by_epoch=True, convert_to_iter_based=True),
         dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=5, end=20, T_max=15, by_epoch=True,
              convert_to_iter_based=True)]
ITERATIONS = [dict(type='OneCycleLR', eta_max=3e-3, by_epoch=False, total_steps=100)]
SCHEDULES = dict(cyclic=CYCLIC, one_cycle=ONE_CYCLE, steps=STEPS, poly=POLY, phase=PHASE, iterations=ITERATIONS)


def rates(schedulers, epochs):
    """Learning rate of every iteration, and after the last, as MMEngine's hook steps the schedulers."""
    optimizer = OptimWrapper(torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)).optimizer
    built = []
    for part in schedulers:
        part = dict(part)
        owner = PARAM_SCHEDULERS.get(part.pop('type'))
        if part.pop('convert_to_iter_based', False):
            built.append(owner.build_iter_from_epoch(optimizer=optimizer, epoch_length=EPOCH, **part))
        else:
            built.append(owner(optimizer=optimizer, **part))
    seen = []
    for _ in range(epochs):
        for _ in range(EPOCH):
            seen.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            [one.step() for one in built if not one.by_epoch]
        [one.step() for one in built if one.by_epoch]
    return [*seen, optimizer.param_groups[0]['lr']]


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('epochs', [1, 2, 7, 31])
def test_schedules_of_another_length_end_where_the_full_one_ends(name, epochs):
    full = rates(SCHEDULES[name], 20)
    followed, lines = follow_run(SCHEDULES[name], RunLength(epochs * EPOCH, EPOCH))
    assert len(lines) == 1 and f'written for 20 epochs, the run has {epochs} epoch' in lines[0]
    own = rates(followed, epochs)
    # A cosine's last of n steps is (pi / 2n)^2 of its height above its end; the steepest here falls in 0.6 of the run.
    assert own[-1] == pytest.approx(full[-1], rel=0.02, abs=1.1 * max(full) * (math.pi / 1.2 / min(len(own), 100)) ** 2)
    assert own[-1] < 0.3 * max(own)
    if epochs >= 7:
        assert max(own) == pytest.approx(max(full), rel=0.05)


@pytest.mark.parametrize('name', SCHEDULES)
def test_a_schedule_of_the_runs_length_stays_untouched(name):
    followed, lines = follow_run(SCHEDULES[name], RunLength(20 * EPOCH, EPOCH))
    assert followed is SCHEDULES[name] and lines == []


def test_a_run_above_its_schedule_would_have_died():
    with pytest.raises(ValueError, match='Tried to step'):
        rates(ONE_CYCLE, 21)
    rates(follow_run(ONE_CYCLE, RunLength(21 * EPOCH, EPOCH))[0], 21)


@pytest.mark.parametrize('chain', [
    [dict(type='LinearLR', start_factor=0.1, begin=0, end=3)],  # a warm-up, then the optimizer's own rate
    [dict(type='ConstantLR', factor=0.1, begin=0, end=3)], [dict(type='ExponentialLR', gamma=0.9)],
    [dict(type='StepLR', step_size=3)], [], None])
def test_schedules_that_say_no_length_stay(chain):
    assert follow_run(chain, RunLength(100, EPOCH)) == (chain, [])


def test_a_warm_up_longer_than_the_run_is_told():
    chain = [dict(type='LinearLR', start_factor=0.1, begin=0, end=1000, by_epoch=False)]
    followed, lines = follow_run(chain, RunLength(100, EPOCH))
    assert followed == chain and 'param_scheduler.0: ends after 200 epochs, the run after 20 epochs' in lines[0]


@pytest.mark.parametrize(('part', 'message'), [
    (dict(type='CosineAnnealingLR', T_max=10), 'T_max=10 and no end: after 10 epochs of 20 epochs its value would climb back'),
    (dict(type='MultiStepLR', milestones=[16, 24]), r'milestones=\[16, 24\], but the run ends after 20 epochs'),
])
def test_what_cannot_be_meant_for_the_run_is_refused(part, message):
    with pytest.raises(UserError, match=message):
        follow_run([part], RunLength(20 * EPOCH, EPOCH))


def test_one_scheduler_and_several_optimizers():
    single, _ = follow_run(dict(ONE_CYCLE[0]), RunLength(10 * EPOCH, EPOCH))
    assert single['total_steps'] == 50 and single['by_epoch'] is False
    both, lines = follow_run(dict(a=ONE_CYCLE, b=STEPS), RunLength(10 * EPOCH, EPOCH))
    assert both['a'][0]['total_steps'] == 50 and both['b'][1]['milestones'] == [40, 47] and len(lines) == 2


def test_resuming_with_another_length_is_refused():
    check_resumed_length(dict(max_epochs=20), 20, True, 'a.pth', ONE_CYCLE)
    check_resumed_length(dict(max_epochs=20), 30, True, 'a.pth', None)  # a constant rate goes on as it is
    check_resumed_length({}, 30, True, 'a.pth', ONE_CYCLE)
    with pytest.raises(UserError, match=r'a.pth: is of a run of max_epochs=20.*train_cfg.max_epochs=20, or start a new run'):
        check_resumed_length(dict(max_epochs=20), 30, True, 'a.pth', ONE_CYCLE)
