"""Geometry, frame sampling. The samplers of single frames: uniform, space-aware, k-centre, efficient."""

from __future__ import annotations

import numpy as np

from .cover import lazy_cover
from .pose_distance import k_centre
from .registry import FRAME_SAMPLERS
from .sampler import POOL, Choice, FrameSampler
from .uniform_indices import UNIFORM_FORMS
from .video import Video


@FRAME_SAMPLERS.register_module('uniform')
class UniformSampler(FrameSampler):
    """Evenly spread frames.

    Args:
        form: 'pool128' (Spatial-MLLM), 'linspace' (lmms-eval) or 'round' (qwen-vl-utils).
        num_frames, fill, pool: as of FrameSampler.
    """

    def __init__(self, num_frames: int, form: str = 'linspace', fill: bool = False, pool: int = POOL) -> None:
        super().__init__(num_frames, fill, pool)
        if form not in UNIFORM_FORMS:
            raise ValueError(f'form of uniform sampling must be one of {", ".join(UNIFORM_FORMS)}, got {form!r}')
        self.form = form

    def choose(self, video: Video) -> Choice:
        """See FrameSampler. `pool128` has no more than its 128 candidates to give."""
        return Choice(UNIFORM_FORMS[self.form](video.num_frames, self.num_frames), dict(form=self.form))


@FRAME_SAMPLERS.register_module('sa')
class SpaceAwareSampler(FrameSampler):
    """Space-aware sampling of Spatial-MLLM: greedy maximum coverage over the pool; it stops when nothing is new."""

    def choose(self, video: Video) -> Choice:
        """See FrameSampler."""
        pool = self.pool_of(video)
        cover = lazy_cover(video.needed_sets(pool, 'space-aware sampling').words, self.num_frames)
        return Choice(pool[cover.order], dict(gains=cover.gains.tolist(), evaluations=cover.evaluations))


@FRAME_SAMPLERS.register_module('fps')
class FarthestPoseSampler(FrameSampler):
    """k-centre over camera poses: from the medoid on, always the frame farthest from all chosen (our reading of `FPS`).

    Args: as of FrameSampler; it never stops early.
    """

    def choose(self, video: Video) -> Choice:
        """See FrameSampler."""
        video.needed_poses('k-centre sampling')
        return Choice(np.array(k_centre(self.distance(video), self.num_frames), np.int64), {})


@FRAME_SAMPLERS.register_module('efficient')
class EfficientSampler(FrameSampler):
    """The objective of space-aware sampling without a geometry network (our reading of `efficient`).

    Voxels come from depth, LiDAR or view frustums. k-centre thins the frames to `candidates` K, and only these are looked at.

    Args:
        candidates: how many frames are looked at for each that is wanted.
        num_frames, fill, pool, theta0_deg, scale_m: as of FrameSampler.
    """

    def __init__(self, num_frames: int, candidates: int = 4, fill: bool = False, pool: int = POOL, theta0_deg: float = 30.0,
                 scale_m: float = 1.0) -> None:
        super().__init__(num_frames, fill, pool, theta0_deg, scale_m)
        if candidates < 1:
            raise ValueError(f'candidates of efficient sampling must be at least 1, got {candidates}')
        self.candidates = candidates

    def choose(self, video: Video) -> Choice:
        """See FrameSampler."""
        video.needed_poses('efficient sampling')
        frames = np.sort(k_centre(self.distance(video), self.candidates * self.num_frames))
        cover = lazy_cover(video.needed_sets(frames, 'efficient sampling').words, self.num_frames)
        return Choice(frames[cover.order], dict(gains=cover.gains.tolist(), evaluations=cover.evaluations))
