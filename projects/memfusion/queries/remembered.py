"""Queries. In: remembered queries as the memory hands them. Out: the same with what is done about empty slots and motion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.encodings.sine import sine_octaves
from projects.geometry.precision import full_precision

from .conditioned_norm import SplitConditions

QUIRKS = ('empty_slots', 'pseudo_points', 'still_points', 'unrotated_velocity')
NUM_CONDITIONS = 180
"""Of velocity (2), age (1) and motion (3 x 4), each as sines and cosines of six octaves."""
_VELOCITY = [place for place in range(NUM_CONDITIONS) if place % 15 < 2]
_SHARED = [place for place in range(NUM_CONDITIONS) if place % 15 >= 2]


@dataclass(frozen=True)
class RememberedQueries:
    """M queries of B frames, newest first, in the frames' augmented LiDAR frames.

    Attributes:
        embeddings: (B, M, E).
        references_m: (B, M, 3) metres.
        velocity: (B, M, 3) m/s.
        age_s: (B, M) seconds.
        motion: (B, M, 4, 4) from the frame of then.
        there: (B, M) bool; None is all.
        run: how many queries in a row have age and motion in common; 1 where that is not known.
    """

    embeddings: Tensor
    references_m: Tensor
    velocity: Tensor
    age_s: Tensor
    motion: Tensor
    there: Tensor | None
    run: int = 1

    @classmethod
    @full_precision
    def of(cls, queries: Mapping[str, Tensor], start_m: Tensor, quirks: frozenset[str]) -> RememberedQueries:
        """What QueryMemory hands on, made ready.

        Args:
            queries: Readout.queries.
            start_m: (P, 3), what the published code begins a scene with.
            quirks: those of QUIRKS that are on.
        """
        parts = dict(queries)
        run, there, motion = int(parts.pop('run').min()), parts['there'], parts['motion']
        full = run > 0
        if 'unrotated_velocity' in quirks:
            parts['velocity'] = torch.linalg.solve(motion[..., :3, :3], parts['velocity'][..., None])[..., 0]
        if 'still_points' not in quirks:
            parts['references_m'] = parts['references_m'] + parts['velocity'] * parts['age_s'][..., None]
        if 'empty_slots' in quirks and not full:
            parts['motion'] = motion * there[..., None, None]
        found = cls(**parts, run=run if full and there.shape[1] % run == 0 else 1)
        if 'pseudo_points' in quirks and not full:
            found = found._begun(start_m)
        return replace(found, there=None) if full or 'empty_slots' in quirks else found

    def _begun(self, start_m: Tensor) -> RememberedQueries:
        """The published points in the first slots, where nothing is stored there."""
        rest = self.embeddings.shape[1] - len(start_m)
        assert self.there is not None
        first = F.pad(torch.ones_like(self.there[:, :len(start_m)]), (0, rest)) & ~self.there
        eye = torch.eye(4, dtype=self.motion.dtype, device=self.motion.device)
        points = F.pad(start_m.to(self.references_m), (0, 0, 0, rest))
        return replace(self, references_m=torch.where(first[..., None], points, self.references_m),
                       motion=torch.where(first[..., None, None], eye, self.motion), there=self.there | first)

    @full_precision
    def conditions(self) -> Tensor | SplitConditions:
        """(B, M, 180), how they were seen: what the motion-aware norm is given."""
        velocity = self.velocity[..., :2]
        if self.run == 1:
            return conditions(velocity, self.age_s, self.motion)
        shared = torch.cat([self.age_s[:, ::self.run, None], self.motion[:, ::self.run, :3].flatten(-2)], dim=-1)
        return SplitConditions(sine_octaves(velocity), sine_octaves(shared), self.run, _VELOCITY, _SHARED)


def conditions(velocity: Tensor, age_s: Tensor, motion: Tensor) -> Tensor:
    """(..., 2) m/s, (...) s and (..., 4, 4) -> (..., 180)."""
    return sine_octaves(torch.cat([velocity, age_s[..., None], motion[..., :3, :].flatten(-2)], dim=-1))
