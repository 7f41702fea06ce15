"""Geometry and similarity are never rounded. The settings are the same with and without a GPU, so they are looked at here."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from projects.geometry import full_precision, transform_points, warp_bev
from projects.geometry.precision import _SWITCH, _passes
from projects.memfusion.memory.similarity import read_memory

PER_OPERATION = hasattr(torch._C, '_get_fp32_precision_getter')
PARENTS = [('cuda', 'all'), ('mkldnn', 'all'), ('generic', 'all')]
OPERATIONS = [(backend, name) for backend in ('cuda', 'mkldnn') for name in ('matmul', 'conv', 'rnn')]


def put(operation, value):
    torch._C._set_fp32_precision_setter(*operation, value)


def told(read):
    try:
        return read()
    except RuntimeError:
        return 'contradiction'


def settings():
    """Everything that says how float32 is multiplied."""
    found = {read.__name__: told(read) for read in (
        torch._C._get_cublas_allow_tf32, torch._C._get_cudnn_allow_tf32, torch.get_float32_matmul_precision)}
    if PER_OPERATION:
        found.update({operation: torch._C._get_fp32_precision_getter(*operation) for operation in OPERATIONS + PARENTS})
    return found


def followed():
    """The settings for each setting of all operations: which of them follow it."""
    if not PER_OPERATION:
        return settings()
    kept, found = torch._C._get_fp32_precision_getter('generic', 'all'), []
    for value in ('ieee', 'tf32', 'none', kept):
        put(('generic', 'all'), value)
        found.append(settings())
    return found


def switches():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def rounded():
    """Whether any product of float32 may be rounded now."""
    if PER_OPERATION:
        return any(torch._C._get_fp32_precision_getter(*operation) not in ('none', 'ieee') for operation in OPERATIONS)
    return any(switches())


def reset():
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = True
    if PER_OPERATION:
        for operation in PARENTS + OPERATIONS:
            put(operation, 'tf32' if operation in (('cuda', 'conv'), ('cuda', 'rnn')) else 'none')
    assert rounded(), 'cuDNN rounds by default'


@pytest.fixture(autouse=True)
def default_settings():
    reset()
    yield
    assert _SWITCH._users == 0 and len(_passes) == 0
    reset()


class Record(torch.autograd.Function):
    """The identity; notes whether products are rounded, forward and backward."""

    @staticmethod
    def forward(ctx, x, notes):
        ctx.notes = notes
        notes.append(('forward', rounded()))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.notes.append(('backward', rounded()))
        return gradient, None


class Fail(torch.autograd.Function):
    """The identity, whose gradient fails."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        assert not rounded()
        raise MemoryError('no memory')


record, fail = full_precision(Record.apply), full_precision(Fail.apply)
EXACT = [('forward', False), ('backward', False)]


def per_operation(**values):
    return lambda: [put(tuple(name.split('_')), value) for name, value in values.items()]


CHOICES = dict(
    default=lambda: None, high=lambda: torch.set_float32_matmul_precision('high'),
    medium=lambda: torch.set_float32_matmul_precision('medium'),
    matmul=lambda: setattr(torch.backends.cuda.matmul, 'allow_tf32', True),
    no_cudnn=lambda: setattr(torch.backends.cudnn, 'allow_tf32', False))
OLD = list(CHOICES)
if PER_OPERATION:
    CHOICES.update(
        all_tf32=per_operation(generic_all='tf32'), all_bf16=per_operation(generic_all='bf16'),
        cuda_tf32=per_operation(cuda_all='tf32', cuda_conv='none'), cuda_matmul=per_operation(cuda_matmul='tf32'),
        conv_exact=per_operation(cuda_conv='ieee'), both=per_operation(generic_all='tf32', cuda_all='tf32', mkldnn_conv='tf32'),
        exact_under_tf32=per_operation(generic_all='tf32', cuda_all='ieee'))


@pytest.mark.parametrize('choice', CHOICES)
def test_nothing_is_rounded_inside_and_the_users_choice_is_back_outside(choice):
    CHOICES[choice]()
    before, notes = followed(), []
    y = record(torch.ones(2, requires_grad=True), notes)
    assert followed() == before
    y.sum().backward()
    assert notes == EXACT and followed() == before


@pytest.mark.parametrize('choice', OLD)
@pytest.mark.parametrize('old_torch', [False, True])
def test_the_old_switches_read_false_inside(choice, old_torch, monkeypatch):
    if old_torch:
        monkeypatch.setattr('projects.geometry.precision._HAS_PRECISION_PER_OPERATION', False)
    CHOICES[choice]()
    before = (*switches(), torch.get_float32_matmul_precision())
    inside = full_precision(lambda: (*switches(), torch.get_float32_matmul_precision()))()
    assert inside == (False, False, 'highest') and (*switches(), torch.get_float32_matmul_precision()) == before


def test_the_settings_are_back_after_an_error():
    before, x = settings(), torch.ones(2, requires_grad=True)

    @full_precision
    def refuse():
        raise KeyError('forward')

    with pytest.raises(KeyError):
        refuse()
    assert settings() == before
    for _ in range(2):
        with pytest.raises(MemoryError):
            record(fail(x), []).sum().backward()
        assert settings() == before
    assert rounded()


def test_what_lies_outside_is_left_alone_forward_and_backward():
    inside, outside = [], []
    x = torch.ones(2, requires_grad=True)
    y = Record.apply(record(Record.apply(x, outside), inside), outside) + Record.apply(x, outside)
    y.sum().backward()
    assert inside == EXACT and set(outside) == {('forward', True), ('backward', True)} and len(outside) == 6


@dataclass(frozen=True)
class Pair:
    first: torch.Tensor
    rest: dict


def test_every_way_out_of_a_nested_call_is_covered():
    notes = []

    @full_precision
    def outer(x):
        parts = [record(x * (i + 1), notes) for i in range(3)]
        return Pair(parts[0], dict(rest=[parts[1], (parts[2], None, 'name', 3)]))

    pair = outer(torch.ones(2, requires_grad=True))
    total = pair.first + pair.rest['rest'][0] + 2 * pair.first + pair.rest['rest'][1][0]
    total.sum().backward(retain_graph=True)
    total.sum().backward()  # and a second pass
    assert notes == [EXACT[0]] * 3 + [EXACT[1]] * 6
    with pytest.raises(TypeError, match='cannot look for tensors in a set'):
        full_precision(lambda: {1})()


def test_inputs_without_gradient_parameters_and_partial_gradients():
    weight, notes = torch.ones(2, requires_grad=True), []

    @full_precision
    def scaled(x):
        return Record.apply(weight, notes) * x

    scaled(torch.ones(2)).sum().backward()
    assert notes == EXACT and torch.equal(weight.grad, torch.ones(2))
    x = torch.ones(2, requires_grad=True)
    torch.autograd.grad(scaled(x).sum(), [x])  # the other branch never runs
    with torch.no_grad():
        assert not scaled(x).requires_grad
    assert notes == EXACT + [EXACT[0]] * 2 and rounded()


@pytest.mark.parametrize('reentrant', [False, True])
def test_under_gradient_checkpoints(reentrant):
    notes, outside = [], []
    x = torch.ones(2, requires_grad=True)
    y = checkpoint(lambda x: Record.apply(record(x, notes), outside).square(), x, use_reentrant=reentrant)
    y.sum().backward()
    assert ('backward', False) in notes and {flag for _, flag in notes} == {False} and {flag for _, flag in outside} == {True}
    assert torch.equal(x.grad, torch.full((2,), 2.0)) and rounded()


def test_threads_that_overlap_leave_the_users_settings():
    before, entered, leave = settings(), threading.Event(), threading.Event()

    @full_precision
    def wait():
        entered.set()
        leave.wait(10)

    other = threading.Thread(target=wait)
    other.start()
    entered.wait(10)
    notes = []
    record(torch.ones(1, requires_grad=True), notes).sum().backward()
    leave.set()
    other.join()
    assert notes == EXACT and settings() == before


@pytest.mark.skipif(not PER_OPERATION, reason='torch has no settings per operation')
def test_a_cpu_that_multiplies_bfloat16_gives_the_same_numbers():
    def run():
        drawn = torch.Generator().manual_seed(0)
        key, query, value = (torch.randn(4, 32, 256, generator=drawn, requires_grad=True) for _ in range(3))
        read = read_memory(query, key.sigmoid(), key, key[:, :1].square() + 1, value)
        pose = torch.eye(4) + 0.1 * torch.randn(4, 4, 4, generator=drawn)
        moved = transform_points(pose, 50 * value.transpose(1, 2)[..., :3])
        warped = warp_bev(value.view(4, 32, 16, 16), pose, (-4.0, -4.0, -1.0, 4.0, 4.0, 1.0))
        (read.sum() + moved.square().sum() + warped.square().sum()).backward()
        return [read.detach(), moved.detach(), warped.detach(), key.grad, query.grad, value.grad]

    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    exact, product = run(), a @ a
    put(('mkldnn', 'matmul'), 'bf16')
    same = run()
    if torch.equal(a @ a, product):
        pytest.skip('this processor does not multiply float32 in bfloat16')
    for x, y in zip(exact, same):
        assert torch.equal(x, y)


def test_autocast_is_off_inside_on_every_device():
    with torch.autocast('cpu', torch.bfloat16):
        assert full_precision(lambda: torch.ones(2, 2) @ torch.ones(2, 2))().dtype == torch.float32
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
