"""LinearRampHook: values by hand, through wrappers, the same after a resume, and wrong names before training."""

from types import SimpleNamespace

import pytest
from mmengine.model import MMDistributedDataParallel
from torch import nn

from projects.memfusion.hooks import LinearRampHook
from projects.memfusion.memory.masks import MaskPolicy


class Slot(nn.Module):
    """A module with a checked number, as TemporalSlot has."""

    def __init__(self):
        super().__init__()
        self._alpha, self.masks = 0.5, MaskPolicy()

    @property
    def alpha(self):
        return self._alpha

    @alpha.setter
    def alpha(self, value):
        if not 0 <= value <= 1:
            raise ValueError('temporal.alpha')
        self._alpha = value


@pytest.fixture
def model():
    outer = nn.Module()
    outer.temporal = Slot()
    return outer


def at(hook, model, iteration):
    hook.before_train_iter(SimpleNamespace(model=model, iter=iteration), batch_idx=0)


def test_values_by_hand(model):
    hook = LinearRampHook('temporal.alpha', start=0.2, end=1.0, begin=100, finish=300)
    for iteration, value in ((0, 0.2), (100, 0.2), (150, 0.4), (200, 0.6), (299, 0.996), (300, 1.0), (10000, 1.0)):
        at(hook, model, iteration)
        assert model.temporal.alpha == pytest.approx(value)


def test_a_falling_ramp_of_a_setting_of_the_masks(model):
    hook = LinearRampHook('temporal.masks.teacher_forcing', start=1.0, end=0.0, begin=0, finish=4)
    seen = []
    for iteration in range(6):
        at(hook, model, iteration)
        seen.append(model.temporal.masks.teacher_forcing)
    assert seen == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])


def test_a_step_is_a_ramp_without_length(model):
    hook = LinearRampHook('temporal.alpha', start=0.0, end=1.0, begin=10, finish=10)
    for iteration, value in ((9, 0.0), (10, 1.0)):
        at(hook, model, iteration)
        assert model.temporal.alpha == value


def test_it_depends_on_the_iteration_alone(model):
    """A resumed run goes on where it was: the first value after the resume is that of its iteration."""
    at(LinearRampHook('temporal.alpha', 0.0, 1.0, 0, 100), model, 73)
    assert model.temporal.alpha == pytest.approx(0.73)


def test_it_reaches_the_model_in_its_wrapper(model):
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    hook = LinearRampHook('temporal.alpha', 0.0, 1.0, 0, 4)
    hook.before_train(SimpleNamespace(model=wrapper))
    at(hook, wrapper, 1)
    assert model.temporal.alpha == 0.25


@pytest.mark.parametrize('attribute', ['temporal.aplha', 'temporal.masks', 'memory.alpha', 'temporal.masks.nothing.here'])
def test_numbers_that_the_model_lacks_are_named_before_training(model, attribute):
    with pytest.raises(ValueError, match=attribute):
        LinearRampHook(attribute, 0.0, 1.0, 0, 10).before_train(SimpleNamespace(model=model))


def test_ramps_that_run_backwards_are_named():
    for begin, finish in ((10, 5), (-1, 5)):
        with pytest.raises(ValueError, match='temporal.alpha.*begin <= finish'):
            LinearRampHook('temporal.alpha', 0.0, 1.0, begin, finish)
