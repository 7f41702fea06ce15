"""Contract, no network: object queries that outlive their frame. In: what a head offers. Out: what is remembered of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .memory_state import TemporalState


@dataclass(frozen=True)
class QueryProposals:
    """What a query head offers to memory, of Q queries of B frames, in their augmented LiDAR frames.

    Attributes:
        embeddings: (B, Q, E).
        references_m: (B, Q, 3) where they found something, metres.
        velocity: (B, Q, 2) m/s.
        scores: (B, Q) how sure they are, 0..1; below 0 for a query that is not there.
        num_there: how many of each frame's are there at least, which the host knows.
        start_m: (P, 3) points that a scene begins with, in place of queries of earlier frames; None is none.
    """

    embeddings: Tensor
    references_m: Tensor
    velocity: Tensor
    scores: Tensor
    num_there: int
    start_m: Tensor | None = None


@dataclass(frozen=True)
class QueryState(TemporalState):
    """M remembered queries of B scenes, newest first, as they were when they were stored.

    Attributes:
        embeddings: (B, M, E).
        references: (B, M, 3) float64, global frame, metres.
        velocity: (B, M, 3) global frame, m/s.
        slot_time_s: (B, M) float64 stamps of the frames they come from.
        slot_global_from_bev: (B, M, 4, 4) float64, those frames' augmented LiDAR frames to global.
        there: (B, M) bool; False for slots that nothing was stored in, which stand where the scene began.
    """

    POSES: ClassVar[tuple[str, ...]] = (*TemporalState.POSES, 'slot_global_from_bev')

    embeddings: Tensor
    references: Tensor
    velocity: Tensor
    slot_time_s: Tensor
    slot_global_from_bev: Tensor
    there: Tensor
