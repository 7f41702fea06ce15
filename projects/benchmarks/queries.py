"""Benchmark, query decoders. In: repeats. Out: each against the same arithmetic in the published order, side by side.

The plain forms are in `*_plain.py`; a test replays each before it may be timed.
"""

from __future__ import annotations

from .bevformer import measure_bevformer
from .cmt import measure_cmt
from .models import Row
from .petr import measure_petr
from .sparsebev import measure_sparsebev
from .streampetr import measure_streampetr


def measure_queries(repeats: int) -> list[Row]:
    """Time and peak memory at the published settings of R50 at 256 x 704, design after design."""
    return [*measure_petr(repeats), *measure_sparsebev(repeats), *measure_streampetr(repeats),
            *measure_cmt(repeats), *measure_bevformer(repeats)]
