"""Stage data: files that appear whole or not at all, and ordered parallel work with a progress bar; no frame."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

PARTIAL_SUFFIX = '.partial'
Result = TypeVar('Result')
_task: Callable[[int], Any] | None = None


def partial_path(path: Path) -> Path:
    """The hidden sibling under whose name `path` is written until it is complete."""
    return path.with_name(f'.{path.name}{PARTIAL_SUFFIX}')


def write_pickles(objects: Mapping[Path, Any]) -> None:
    """Pickles every object to its path: all are written in full under hidden names before the first is renamed.

    Raises:
        OSError: If a file cannot be written; the targets are then as they were.
    """
    try:
        for path, content in objects.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial_path(path), 'wb') as file:
                pickle.dump(content, file, protocol=4)  # what mmdet3d's own files have
                file.flush()
                os.fsync(file.fileno())
        for path in objects:
            os.replace(partial_path(path), path)
    finally:
        for path in objects:
            partial_path(path).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes the text to `path`, in a folder that exists, under a hidden name until it is complete."""
    partial_path(path).write_text(text)
    partial_path(path).replace(path)


def map_in_order(task: Callable[[int], Result], count: int, workers: int, title: str) -> list[Result]:
    """`[task(0), ..., task(count - 1)]`, in that order whatever the number of workers, with a progress bar.

    Args:
        task: Called with an index; the workers are forked, so it may hold large objects, which are shared, not copied.
        count: Number of indices.
        workers: Number of processes; 1, or a system that cannot fork, runs in this process.
        title: Text in front of the progress bar.

    Raises:
        Whatever `task` raises, from any worker.
    """
    if workers <= 1 or count <= 1 or 'fork' not in multiprocessing.get_all_start_methods():
        with tqdm(range(count), desc=title) as bar:  # closed on an error too, so that the message gets its own line
            return [task(index) for index in bar]
    fork = multiprocessing.get_context('fork')
    with fork.Pool(min(workers, count), initializer=_start_worker, initargs=(task,)) as pool:  # a fork inherits, no pickling
        with tqdm(pool.imap(_run_task, range(count)), total=count, desc=title) as bar:
            return list(bar)


def _start_worker(task: Callable[[int], Any]) -> None:
    global _task
    _task = task  # in the worker's own process
    # Each worker is one thread: more would fight over the cores, and OpenMP's pool does not survive a fork.
    torch.set_num_threads(1)


def _run_task(index: int) -> Any:
    assert _task is not None
    return _task(index)
