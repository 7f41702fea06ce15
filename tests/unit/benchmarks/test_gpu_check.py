"""tools/gpu_check.py without a GPU, and without mmcv's compiled ops; what it would say where something is wrong."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest
import torch

from projects.benchmarks.gpu_check import checks, run
from projects.benchmarks.gpu_check.cases import CASES, Case

WITHOUT_OPS = '''
import sys
sys.modules.update({name: None for name in ('mmcv._ext', 'mmcv.ops', 'mmdet3d.models', 'mmdet.models')})
sys.argv = ['gpu_check.py', '--device', 'cpu', '--skip-published']
import runpy
runpy.run_path('tools/gpu_check.py', run_name='__main__')
'''


def test_everything_is_built_and_right_where_mmcv_has_no_compiled_ops(repo):
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', WITHOUT_OPS], cwd=repo, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == 'gpu_check: ok on cpu', done.stdout + done.stderr
    assert [name for name in CASES if not any(line.startswith(f'{name}: from the CPU 0') for line in lines)] == []


def test_without_a_gpu_it_says_so(repo, monkeypatch, capsys):
    main = runpy.run_path(str(repo / 'tools' / 'gpu_check.py'))['main']
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py'])
    assert main() == 1 and capsys.readouterr().out.startswith('gpu_check: FAILED: torch finds no CUDA device')


@pytest.fixture
def wrong(monkeypatch):
    """wrong(make): the cases are this one."""
    return lambda make, **settings: monkeypatch.setattr(run, 'CASES', {'it': Case(make, **settings)})


def test_what_fails_is_named(wrong, repo, capsys):
    def fails(draw):
        raise RuntimeError('no kernel image\nis available')

    wrong(fails)
    assert run.run('cpu', repo, published=False) == ['it']
    assert 'it: FAILED (RuntimeError: no kernel image);' in capsys.readouterr().out


def test_numbers_that_change_from_run_to_run_fail(wrong, repo, capsys):
    wrong(lambda draw: lambda: draw(3) + torch.rand(3))
    assert run.run('cpu', repo, published=False, only='it') == ['it']
    assert 'FAILED (does not repeat its bits)' in capsys.readouterr().out


def test_distance_by_hand():
    one = torch.tensor([3.0, 4.0])
    assert checks.distance([one], [one]) == 0
    assert checks.distance([one, one], [one, torch.tensor([3.0, 5.0])]) == pytest.approx(0.2)
    assert checks.distance([torch.tensor([float('nan')])], [torch.tensor([1.0])]) == float('inf')
