"""Geometry and blocks above it. In: nothing. Out: whether torch.export is looking, which takes what the host knows as fixed."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """True while torch.export traces; numbers that depend on the data are then not known to the host, as on a GPU."""
    asked = getattr(torch.compiler, 'is_exporting', None)  # torch 2.7
    return asked is not None and asked()
