"""--deterministic: torch warns of what it has no deterministic algorithm for, and the run goes on."""

from __future__ import annotations

import logging
import os
import warnings
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from projects.memfusion.hooks import DeterminismHook


@pytest.fixture
def as_before(monkeypatch):
    """Leaves the process as it was."""
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    attention = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    with warnings.catch_warnings():
        yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_flash_sdp(attention[0])
    torch.backends.cuda.enable_mem_efficient_sdp(attention[1])
    if hasattr(torch.backends.cuda, 'enable_cudnn_sdp'):
        torch.backends.cuda.enable_cudnn_sdp(True)


def runner(model=None):
    told = []
    logger = SimpleNamespace(warning=told.append, level=logging.INFO)
    return SimpleNamespace(model=nn.Linear(1, 1) if model is None else model, logger=logger), told


def no_algorithm():
    """An operation that has no deterministic algorithm on a CPU either."""
    return torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def test_an_operation_without_one_warns_once_and_runs(as_before):
    torch.use_deterministic_algorithms(True)  # as MMEngine's set_random_seed does
    with pytest.raises(RuntimeError, match='does not have a deterministic implementation'):
        no_algorithm()
    one, told = runner()
    DeterminismHook().before_run(one)
    with warnings.catch_warnings(record=True) as seen:
        for _ in range(3):
            assert no_algorithm()[0] == 1
    assert len(seen) == 1 and 'put_' in str(seen[0].message)
    assert len(told) == 1 and 'only deterministic algorithms' in told[0]
    assert torch.are_deterministic_algorithms_enabled() and os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    assert not torch.backends.cuda.flash_sdp_enabled() and not torch.backends.cuda.mem_efficient_sdp_enabled()


def test_kernels_from_outside_torch_are_named(as_before):
    from spconv.pytorch import SubMConv3d
    torch.use_deterministic_algorithms(True)
    one, told = runner(nn.Sequential(nn.Linear(1, 1), SubMConv3d(1, 1, 3), SubMConv3d(1, 1, 3)))
    DeterminismHook().before_run(one)
    assert told[1].startswith('spconv.SubMConv3d: with kernels of their own')


def test_nothing_happens_where_it_is_not_wanted(as_before):
    one, told = runner()
    DeterminismHook().before_run(one)
    assert told == [] and not torch.are_deterministic_algorithms_enabled() and 'CUBLAS_WORKSPACE_CONFIG' not in os.environ


def test_every_config_has_it(repo):
    hooks = [hook.type for hook in Config.fromfile(repo / 'configs/_base_/runtime.py').custom_hooks]
    assert 'DeterminismHook' in hooks
