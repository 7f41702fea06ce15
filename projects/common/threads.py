"""Common. Before torch is loaded: how OpenMP waits, what is left out. Needs Python alone, so every tool calls it first."""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any


def wait_passively() -> None:
    """Threads without work sleep, unless OMP_WAIT_POLICY says otherwise. OpenMP reads it when torch is loaded.

    Threads that wait actively fight for the cores with data workers and other processes. Every tool also starts without
    what `LeftOut` leaves out.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if not any(isinstance(finder, LeftOut) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeftOut())


class LeftOut(MetaPathFinder):
    """MMEngine and mmdet import transformers where it is there, for an optimizer and for detectors that read text: two seconds
    of every start. To them it is not there; everybody else may import it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        """Python asks before it looks for a module; ModuleNotFoundError where it is left out."""
        if name != 'transformers':
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and 'importlib' in frame.f_globals.get('__name__', ''):
            frame = frame.f_back
        if frame.f_globals.get('__name__', '').split('.')[0] in ('mmengine', 'mmdet'):
            raise ModuleNotFoundError('transformers is left out of MMEngine and mmdet (projects/common/threads.py)', name=name)
