"""The whole detector on a GPU against its CPU twin: `python -m pytest -m gpu`. It needs mmcv's ops built for the card.

`GPU_TESTS_DEVICE=cpu python -m pytest -m gpu tests/gpu/test_detector.py` makes the same tests without a GPU, to test them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from gpu.steps import build, streamed, training_step

from projects.memfusion.hooks import DeterminismHook

DEVICE = os.environ.get('GPU_TESTS_DEVICE', 'cuda')
pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(DEVICE == 'cuda' and not torch.cuda.is_available(), reason='needs a CUDA device')]
HALF = torch.float16 if DEVICE == 'cuda' else torch.bfloat16


@pytest.fixture(autouse=True)
def without_tf32():
    """torch's own settings afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope='module')
def model():
    return build(DEVICE)


@pytest.fixture(scope='module')
def trained():
    """A training step on the CPU."""
    return training_step(build('cpu'), 'ab')


@pytest.fixture(scope='module')
def seen():
    """A streamed scene on the CPU."""
    return streamed(build('cpu'))


def check(found, expected, tolerance):
    """Every tensor to `tolerance` of its largest number; of gradients, which may be tiny, to that of the largest of all."""
    assert found.keys() == expected.keys()
    gradients = max(float(value.abs().max()) for name, value in expected.items() if 'loss' not in name)
    for name, value in expected.items():
        size = max(float(value.abs().max()), 1e-3 * gradients)
        assert (found[name] - value).abs().max() <= tolerance * size, name


def check_seen(found, expected, tolerance):
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_a_training_step(model, trained):
    check(training_step(model, 'ab'), trained, 1e-3)


def test_streaming(model, seen):
    check_seen(streamed(model), seen, 1e-4)


def test_autocast(model, trained):
    """Half precision keeps the losses, and no gradient is lost or infinite."""
    found = training_step(model, 'ab', dtype=HALF, scale=128.0)
    assert found.keys() == trained.keys()
    for name, value in found.items():
        assert torch.isfinite(value).all(), name
        if 'loss' in name:
            assert (value - trained[name]).abs() <= 0.05 * trained[name].abs() + 1e-3, name


def test_tf32(model, trained, seen):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    found = training_step(model, 'ab')
    for name, value in trained.items():
        if 'loss' in name:
            assert (found[name] - value).abs() <= 0.02 * value.abs() + 1e-4, name
    check_seen(streamed(model), seen, 0.02)


def test_channels_last(trained, seen):
    model = build(DEVICE).to(memory_format=torch.channels_last)
    check(training_step(model, 'ab'), trained, 1e-3)
    check_seen(streamed(model), seen, 1e-4)


@pytest.fixture
def deterministic(model):
    names = ('flash_sdp', 'mem_efficient_sdp', 'cudnn_sdp')
    before = {name: getattr(torch.backends.cuda, f'{name}_enabled')() for name in names}
    torch.use_deterministic_algorithms(True)
    DeterminismHook().before_run(SimpleNamespace(model=model, logger=SimpleNamespace(warning=lambda text: None)))
    yield
    torch.use_deterministic_algorithms(False)
    for name, value in before.items():
        getattr(torch.backends.cuda, f'enable_{name}')(value)


def test_a_deterministic_training_step_repeats_its_bits(model, trained, deterministic):
    first, second = training_step(model, 'ab'), training_step(model, 'ab')
    assert all(torch.equal(first[name], second[name]) for name in trained)
    check(first, trained, 1e-3)


# -- several processes ------------------------------------------------------------------------------------------------
@pytest.fixture
def ranks(repo, tmp_path):
    """ranks(backend, devices): a training step of DistributedDataParallel -> what each rank found."""

    def run(backend, devices):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        files = [tmp_path / f'{rank}.pth' for rank in range(len(devices))]
        command = [sys.executable, '-W', 'ignore', 'tests/gpu/steps.py', backend]
        started = [subprocess.Popen([*command, device, str(rank), str(len(devices)), str(port), file], cwd=repo,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                   for rank, (device, file) in enumerate(zip(devices, files))]
        for process in started:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
        return [torch.load(file, weights_only=True) for file in files]

    return run


def check_ranks(found, expected):
    """All ranks hold the gradients of one process with both batches."""
    gradients = {name: value for name, value in expected.items() if 'loss' not in name}
    for one in found:
        assert all(torch.equal(one[name], found[0][name]) for name in gradients)
        check({name: one[name] for name in gradients}, gradients, 1e-3)


def test_nccl_with_one_process(ranks):
    found = ranks('nccl' if DEVICE == 'cuda' else 'gloo', [f'{DEVICE}:0' if DEVICE == 'cuda' else DEVICE])
    check_ranks(found, training_step(build('cpu'), 'a'))


def test_two_processes_on_one_gpu(ranks, trained):
    check_ranks(ranks('gloo', [f'{DEVICE}:0' if DEVICE == 'cuda' else DEVICE] * 2), trained)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='needs two CUDA devices')
def test_nccl_with_two_gpus(ranks, trained):
    check_ranks(ranks('nccl', ['cuda:0', 'cuda:1']), trained)
