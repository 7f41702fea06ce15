"""Queries. In: nothing. Out: what a design makes of its queries, and what a query head says about B frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .denoising import NoisyQueries
from .heatmap_proposals import Proposed


@dataclass(frozen=True)
class Decoded:
    """What a design makes of its queries.

    Attributes:
        logits: (L, B, P + Q, K), noisy queries first.
        codes: (L, B, P + Q, 10) in the head's code, centres in metres.
        there: (B, Q) bool, queries that count; None is all.
        carried: what a memory made for the design wants of the frame, about the Q alone.
        proposed: those of the Q that were found in the BEV; None for a design without.
    """

    logits: Tensor
    codes: Tensor
    there: Tensor | None = None
    carried: Any = None
    proposed: Proposed | None = None


@dataclass(frozen=True)
class QueryOutputs:
    """What a query head says about B frames.

    Attributes:
        logits, codes: (L, B, Q, K), (L, B, Q, 10) float32.
        there: (B, Q) bool, queries that count; None is all.
        noisy: the queries of denoising; None where there are none, and so the next two.
        noisy_logits, noisy_codes: (L, B, P, K), (L, B, P, 10).
        carried, proposed: as in Decoded.
    """

    logits: Tensor
    codes: Tensor
    there: Tensor | None = None
    noisy: NoisyQueries | None = None
    noisy_logits: Tensor | None = None
    noisy_codes: Tensor | None = None
    carried: Any = None
    proposed: Proposed | None = None
