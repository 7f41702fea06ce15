"""Geometry, frame sampling. Samplers of pairs, for video models that merge two frames into one token (temporal patch 2).

Two frames in one token should show the same: each anchor is followed by the near frame whose view overlaps most with its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .cover import lazy_cover
from .pose_distance import angles_and_distances, k_centre
from .registry import FRAME_SAMPLERS
from .sampler import POOL, Choice, FrameSampler
from .uniform_indices import UNIFORM_FORMS
from .video import Video
from .voxel_sets import VoxelSets


@dataclass(frozen=True)
class PairRule:
    """Which frame may follow an anchor.

    Attributes:
        delta: at most this many frames away; at the ends of a video the frames that there are.
        max_angle_deg, max_baseline_m: at most so far turned and moved; None is any, and needs no poses. Where no near frame
            keeps to it, the nearest in time is taken.
    """

    delta: int = 30
    max_angle_deg: float | None = 30.0
    max_baseline_m: float | None = 1.0

    def __post_init__(self) -> None:
        if self.delta < 1:
            raise ValueError(f'delta of pairs must be at least 1 frame, got {self.delta}')

    @property
    def bounded(self) -> bool:
        """Whether poses count."""
        return self.max_angle_deg is not None or self.max_baseline_m is not None

    def near(self, anchor: int, num_frames: int) -> np.ndarray:
        """Ascending frames at most `delta` away, the anchor left out."""
        frames = np.arange(max(0, anchor - self.delta), min(num_frames, anchor + self.delta + 1))
        return frames[frames != anchor]


class Pairing:
    """Finds the partners of a video's frames.

    Args:
        video, rule: whose, and which may be.
        anchors: (n,) frames whose partners will be asked for.
    """

    def __init__(self, video: Video, rule: PairRule, anchors: np.ndarray) -> None:
        self.video, self.rule = video, rule
        self.poses = video.needed_poses('a bound on angle or baseline of pairs') if rule.bounded else None
        near = [rule.near(int(anchor), video.num_frames) for anchor in anchors]
        self.frames = np.unique(np.concatenate([anchors, *near]))
        self.sets: VoxelSets = video.needed_sets(self.frames, 'pairing frames')
        self.beyond: set[int] = set()

    def rows(self, frames: np.ndarray) -> np.ndarray:
        """Rows of `sets`."""
        return np.searchsorted(self.frames, frames)

    def partner(self, anchor: int, taken: np.ndarray | None = None) -> int:
        """The near frame of largest overlap within the bounds; the nearest in time, then the later one, among equals.

        Frames in `taken` are avoided as long as another near one is free.
        """
        near = self.rule.near(anchor, self.video.num_frames)
        free = near if taken is None else near[~np.isin(near, taken)]
        near = free if len(free) else near
        away = np.abs(near - anchor)
        allowed = self._allowed(anchor, near)
        if not allowed.any():
            self.beyond.add(anchor)
            return int(near[np.lexsort((-near, away))[0]])
        near, away = near[allowed], away[allowed]
        overlap = self.sets.overlap(int(self.rows(np.array(anchor))), self.rows(near))
        return int(near[np.lexsort((-near, away, -overlap))[0]])

    def _allowed(self, anchor: int, near: np.ndarray) -> np.ndarray:
        if self.poses is None:
            return np.ones(len(near), bool)
        angle_rad, baseline_m = (table[0] for table in angles_and_distances(self.poses[[anchor]], self.poses[near]))
        most_deg, most_m = (math.inf if most is None else most for most in (self.rule.max_angle_deg, self.rule.max_baseline_m))
        return (np.degrees(angle_rad) <= most_deg) & (baseline_m <= most_m)


class MergeAwareSampler(FrameSampler):
    """Base: K / 2 anchors, each followed by its partner.

    Args:
        pair: settings of PairRule.
        num_frames, fill, pool, theta0_deg, scale_m: as of FrameSampler; K is even.
    """

    pairs = True

    def __init__(self, num_frames: int, pair: dict | None = None, fill: bool = False, pool: int = POOL,
                 theta0_deg: float = 30.0, scale_m: float = 1.0) -> None:
        super().__init__(num_frames, fill, pool, theta0_deg, scale_m)
        if num_frames % 2:
            raise ValueError(f'a sampler of pairs chooses an even number of frames, got num_frames={num_frames}')
        self.rule = PairRule(**(pair or {}))

    def follow(self, pairing: Pairing, anchors: list[int], chosen: list[int]) -> list[int]:
        """`chosen`, a0 p0 a1 p1 ..., with the pairs of further anchors behind."""
        chosen = list(chosen)
        for place, anchor in enumerate(anchors):
            chosen += [anchor, pairing.partner(anchor, np.array([*chosen, *anchors[place:]]))]
        return chosen

    def facts(self, pairing: Pairing, chosen: list[int]) -> dict[str, int]:
        """How many pairs have no partner within the bounds."""
        return dict(pairs_beyond_bounds=len(pairing.beyond.intersection(chosen[::2])))


@FRAME_SAMPLERS.register_module('mergeaware_uniform')
class MergeAwareUniform(MergeAwareSampler):
    """Evenly spread anchors (truncated linspace), each with its partner."""

    def choose(self, video: Video) -> Choice:
        """See FrameSampler."""
        anchors = UNIFORM_FORMS['linspace'](video.num_frames, self.num_frames // 2)
        pairing = Pairing(video, self.rule, anchors)
        chosen = self.follow(pairing, anchors.tolist(), [])
        return Choice(np.array(chosen, np.int64), self.facts(pairing, chosen))


@FRAME_SAMPLERS.register_module('mergeaware_sa')
class MergeAwareSpaceAware(MergeAwareSampler):
    """Greedy maximum coverage over pairs: each frame of the pool with its partner, and what the two see together."""

    def choose(self, video: Video) -> Choice:
        """See FrameSampler."""
        pool = self.pool_of(video)
        pairing = Pairing(video, self.rule, pool)
        frames = np.array([[anchor, pairing.partner(anchor)] for anchor in pool.tolist()])
        words = np.bitwise_or(*(pairing.sets.words[pairing.rows(column)] for column in frames.T))
        cover = lazy_cover(words, self.num_frames // 2, frames)
        chosen = frames[cover.order].reshape(-1).tolist()
        missing = (self.num_frames - len(chosen)) // 2
        if self.fill and missing:
            anchors = k_centre(self.distance(video), missing, chosen, among=pool)
            chosen = self.follow(pairing, anchors, chosen)
        return Choice(np.array(chosen, np.int64), dict(
            gains=cover.gains.tolist(), evaluations=cover.evaluations, **self.facts(pairing, chosen)))
