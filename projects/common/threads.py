"""Common. Before torch is loaded: how OpenMP's threads wait. Imports nothing, so every tool calls it first."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Threads without work sleep, unless OMP_WAIT_POLICY says otherwise. OpenMP reads it when torch is loaded.

    Threads that wait actively fight for the cores with data workers and other processes.
    """
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
