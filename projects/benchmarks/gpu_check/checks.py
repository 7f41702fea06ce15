"""Benchmark. In: a case, a device. Out: how far its numbers are from what they should be, its time, memory and waits."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import benchmark

from projects.memfusion.memory.chunked_read import chunked_read
from projects.memfusion.memory.similarity import _fused_read, _validity, expand_memory, expand_query

from .cases import Case
from .inputs import Draw

PARITY, FUSED, ROUNDED = 1e-3, 1e-4, 5e-2
"""Largest difference, as a share of the largest number of each tensor: of gradients too; of the fused kernel; of values in
half precision or with TF32, which keep 8 to 11 bits."""


@dataclass(frozen=True)
class Finding:
    """text says what was found; ok is False where that is wrong."""

    text: str
    ok: bool = True


def distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of any tensor, as a share of its largest number; inf where something is not finite."""
    shares = [0.0]
    for one, other in zip(found, expected, strict=True):
        difference = (one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-12)
        shares.append(float(difference) if torch.isfinite(difference) else float('inf'))
    return max(shares)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """What the user allows in float32 products; what was allowed afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def deterministic() -> Iterator[None]:
    """torch raises an error where something has no deterministic algorithm."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def check_parity(case: Case, device: str) -> Finding:
    """Values and gradients as on the CPU."""
    with tf32(False):
        worst = distance(case.results(device), case.results('cpu'))
    return Finding(f'from the CPU {worst:.1e}', worst <= PARITY)


def check_deterministic(case: Case, device: str) -> Finding:
    """Bit for bit the same in two runs, and also where TF32 is allowed if the case is exact."""
    with deterministic():
        with tf32(False):
            first, second = case.results(device), case.results(device)
        with tf32(True):
            third = case.results(device) if case.exact else first
    repeated = all(map(torch.equal, first, second))
    kept = all(map(torch.equal, first, third))
    return Finding('repeats its bits' + ', also with TF32' * case.exact if repeated and kept
                   else 'TF32 changes it' if repeated else 'does not repeat its bits', repeated and kept)


def check_rounded(case: Case, device: str) -> Finding:
    """Values under autocast and with TF32 stay near those of float32."""
    half = torch.float16 if device == 'cuda' else torch.bfloat16
    with tf32(False):
        precise = case.value(device).float()
        with torch.autocast(device, dtype=half):
            worst = distance([case.value(device).float()], [precise])
    with tf32(True):
        worst_tf32 = distance([case.value(device).float()], [precise])
    return Finding(f'{str(half)[6:]} {worst:.1e}, TF32 {worst_tf32:.1e}', max(worst, worst_tf32) <= ROUNDED)


def check_waits(case: Case, device: str) -> Finding:
    """How often one call waits for the GPU."""
    if device != 'cuda':
        return Finding('waits not counted')
    with torch.no_grad():
        call = case.make(Draw(device))
        call()  # what is made once
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('warn')
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter('always')
                call()
        finally:
            torch.cuda.set_sync_debug_mode('default')
    waits = sum('synchronizing' in str(warning.message) for warning in seen)
    return Finding(f'waits {waits} times', case.waits is None or waits <= case.waits)


def measure(case: Case, device: str) -> Finding:
    """Time of a call and, on a GPU, its peak memory beyond its inputs."""
    with torch.no_grad():
        call = case.make(Draw(device))
        taken = benchmark.Timer('call()', globals=dict(call=call)).blocked_autorange(min_run_time=0.02).median
        text = f'{1e3 * taken:.2f} ms'
        if device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            text += f', {(torch.cuda.max_memory_allocated() - before) / 1e6:.1f} MB'
    return Finding(text)


def check_fused(device: str) -> Finding:
    """The fused memory read against the one by chunks."""
    draw = Draw(device)
    with torch.no_grad(), tf32(False):
        query = expand_query(draw(2, 32, 512), draw(2, 32, 512).sigmoid()) / 32 ** 0.5
        memory, value = expand_memory(draw(2, 32, 1024), draw(2, 1, 1024).square() + 1), draw(2, 1024, 64)
        bias, _ = _validity(draw(2, 1024) > 0, query)
        worst = distance([_fused_read(query, memory, value, bias)], [chunked_read(query, memory, value, bias, None, False)[0]])
    return Finding(f'from the one by chunks {worst:.1e}', worst <= FUSED)


def check_published(repo: Path, device: str) -> Finding:
    """XMem's published numbers, replayed on the device."""
    command = [sys.executable, '-W', 'ignore', 'tests/replay.py', 'tests/reference/xmem_working_memory.npz', '--device', device]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    return Finding((done.stdout or done.stderr).strip().splitlines()[-1], done.returncode == 0)
