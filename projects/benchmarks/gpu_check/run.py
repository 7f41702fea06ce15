"""Benchmark. In: a device. Out: a line for each check of a GPU, and the names of those that fail."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from pathlib import Path

import torch

from .cases import CASES
from .checks import (
    Finding,
    check_deterministic,
    check_fused,
    check_parity,
    check_published,
    check_rounded,
    check_waits,
    measure,
)

OF_A_CASE = (check_parity, check_deterministic, check_rounded, check_waits, measure)


def run(device: str, repo: Path, published: bool = True, only: str = '') -> list[str]:
    """Prints what was found -> the names of the cases that fail.

    Args:
        device: 'cuda' or 'cpu'.
        repo: where tests/replay.py is.
        published: also replay published numbers, which takes most of the time on a CPU.
        only: part of the names of the cases that are wanted; '' is all.
    """
    name = torch.cuda.get_device_name() if device == 'cuda' else platform.processor() or platform.machine()
    print(f'{name}, torch {torch.__version__}, Python {platform.python_version()}')
    failed = [case for case in CASES if only in case
              and not _report(case, [functools.partial(check, CASES[case], device) for check in OF_A_CASE])]
    others: dict[str, Callable[[], Finding]] = {'memory: fused read': functools.partial(check_fused, device)}
    if published:
        others['published numbers'] = functools.partial(check_published, repo, device)
    return failed + [other for other, check in others.items() if only in other and not _report(other, [check])]


def _report(name: str, checks: list[Callable[[], Finding]]) -> bool:
    """Prints one line -> whether all is right."""
    findings = []
    for check in checks:
        try:
            findings.append(check())
        except Exception as error:  # whatever a GPU or a library cannot do; the other checks are still made
            findings.append(Finding(f'{type(error).__name__}: {error}'.splitlines()[0], False))
    ok = all(finding.ok for finding in findings)
    print(f'{name}: ' + '; '.join(finding.text if finding.ok else f'FAILED ({finding.text})' for finding in findings),
          flush=True)
    return ok
