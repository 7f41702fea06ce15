"""Benchmark. In: a call, as functions that make it. Out: its peak memory, measured in a process of its own."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from .models import Row, interleave, rows_of

Case = TypeVar('Case')


def peak_bytes(warm_up: Callable[[], Callable[[], Any]], make: Callable[[], Callable[[], Any]]) -> int:
    """Peak memory of one call beyond its inputs and weights, in a process of its own.

    Args:
        warm_up: makes a small call, so that libraries and threads are there before the count; can be pickled.
        make: makes the call that is measured; can be pickled.

    Raises:
        RuntimeError: where that process fails.
    """
    context = multiprocessing.get_context('spawn')
    answer, told = context.Pipe(duplex=False)
    process = context.Process(target=_peak_bytes, args=(warm_up, make, told))
    process.start()
    told.close()  # so that the end of the process is the end of the pipe
    try:
        value = answer.recv()
    except EOFError:
        raise RuntimeError('the process that measures peak memory ended without an answer: see its error above') from None
    process.join()
    return int(value)


def measure_cases(cases: Mapping[str, Case], build: Callable[[Case], Callable[[], Any]], small: Callable[[Case], Case],
                  baseline: str, note: str, repeats: int) -> list[Row]:
    """Time, case by case in turn, and then the peak memory of each, relative to the case named `baseline`.

    Args:
        cases: by name; can be pickled.
        build: makes the call of a case; can be pickled.
        small: makes of a case the one that warms up the process that measures memory.
        baseline, note: of the rows.
        repeats: rounds.
    """
    calls = {name: build(case) for name, case in cases.items()}
    seconds = interleave(calls, repeats)
    calls.clear()
    peaks = {name: peak_bytes(partial(build, small(case)), partial(build, case)) for name, case in cases.items()}
    return with_peaks(seconds, peaks, baseline, note)


def with_peaks(seconds: dict[str, list[float]], peaks: Mapping[str, int], baseline: str, note: str) -> list[Row]:
    """Rows of these seconds, whose notes also say the peak memory (bytes)."""
    return [Row(row.name, row.seconds, row.low, row.high, baseline, row.ratio,
                f'{note}; {peaks[row.name] / 1e6:.0f} MB ({peaks[row.name] / max(peaks[baseline], 1):.2f}x)')
            for row in rows_of(seconds, baseline)]


def _peak_bytes(warm_up: Callable[[], Callable[[], Any]], make: Callable[[], Callable[[], Any]], told: Any) -> None:
    warm_up()()
    told.send(peak_of_call(make()))


def peak_of_call(call: Callable[[], Any]) -> int:
    """Peak memory of one call in this process, beyond what is held before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    _give_back_freed()
    before, peak = _resident_bytes(), [0]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], _resident_bytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return max(peak[0] - before, 0)


def _give_back_freed() -> None:
    """What earlier calls freed and the allocator kept would serve the measured one unseen (glibc alone has such a call)."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _resident_bytes() -> int:
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')
