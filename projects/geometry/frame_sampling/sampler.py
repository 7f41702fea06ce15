"""Geometry, frame sampling. In: a Video. Out: which K of its frames are used, and a report. The base of all samplers."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from .pose_distance import FrameDistance, k_centre
from .report import describe
from .uniform_indices import truncated_linspace
from .video import Video

POOL = 128


class Choice(NamedTuple):
    """What a sampler chose, before it is put in order.

    Attributes:
        frames: in the order of choice; for pairs a0 p0 a1 p1 ...
        facts: what goes into the report beside what holds for every sampler.
    """

    frames: np.ndarray
    facts: dict[str, Any]


class FrameSampler:
    """Chooses `num_frames` frames of a video. Nothing is drawn at random: the same video gives the same frames.

    Args:
        num_frames: K.
        fill: where the sampler stops early because nothing new is left to see, top up to K frames by k-centre.
        pool: samplers that compare what frames see, and the report, look at this many frames, evenly spread.
        theta0_deg, scale_m: how k-centre counts an angle and a distance, see FrameDistance.

    Raises:
        ValueError: K below 1.
    """

    pairs = False
    """Whether frames come as pairs a0 p0 a1 p1 ..., for models that merge two frames into one token."""

    def __init__(self, num_frames: int, fill: bool = False, pool: int = POOL, theta0_deg: float = 30.0,
                 scale_m: float = 1.0) -> None:
        if num_frames < 1 or pool < 1:
            raise ValueError(f'num_frames and pool of a frame sampler must be at least 1, got {num_frames} and {pool}')
        self.num_frames, self.fill, self.pool = num_frames, fill, pool
        self.theta0_deg, self.scale_m = theta0_deg, scale_m

    def __call__(self, video: Video) -> tuple[np.ndarray, dict[str, Any]]:
        """(n,) int64 frame numbers, n = K, or less where greedy stopped early; and the report, see `describe`.

        They ascend; pairs come as a0 p0 a1 p1 ..., anchors ascending.

        Raises:
            ValueError: the video has fewer than K frames, or lacks what the sampler needs.
        """
        start = time.perf_counter()
        if video.num_frames < self.num_frames:
            raise ValueError(f'{video.name} has {video.num_frames} frames, fewer than the {self.num_frames} that are wanted')
        choice = self.choose(video)
        frames = choice.frames
        if not self.pairs:
            if self.fill and len(frames) < self.num_frames:
                more = k_centre(self.distance(video), self.num_frames - len(frames), frames.tolist())
                frames = np.concatenate([frames, np.array(more, np.int64)])
            frames = np.sort(frames)
        elif len(frames):
            couples = frames.reshape(-1, 2)
            frames = couples[np.argsort(couples[:, 0], kind='stable')].reshape(-1)
        seconds = time.perf_counter() - start
        facts = dict(requested=self.num_frames, seconds=seconds, order=choice.frames.tolist(), **choice.facts)
        return frames, {**facts, **describe(video, frames, self.pool_of(video))}

    def choose(self, video: Video) -> Choice:
        """The frames, in the order of choice."""
        raise NotImplementedError

    def distance(self, video: Video) -> FrameDistance:
        """What k-centre goes by: poses where there are any, else frame numbers."""
        return FrameDistance(video.world_from_cam, video.num_frames, self.theta0_deg, self.scale_m)

    def pool_of(self, video: Video) -> np.ndarray:
        """(min(T, pool),) frames, evenly spread."""
        if video.num_frames <= self.pool:
            return np.arange(video.num_frames)
        return truncated_linspace(video.num_frames, self.pool)
