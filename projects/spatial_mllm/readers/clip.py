"""Spatial: readers. In: a sample. Out: the frames of its video that a sampler chose, with what is known of them.

One video at a time, and of it the chosen frames alone: memory does not grow with videos, nor with their length. Questions about
one video that come one after another share its clip, whose frames are decoded once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from projects.geometry.frame_sampling import Video, build_sampler
from projects.spatial_mllm.readers.geometry_file import ARRAYS, VideoGeometry, check_image_size, read_geometry
from projects.spatial_mllm.readers.samples import Sample
from projects.spatial_mllm.readers.video import open_video

_SEEN = ('depth', 'world_points', 'conf')
_BLIND = ('uniform', 'fps')
"""Samplers that do not ask what a frame sees: depth and points stay on the disk."""


class UnusableSampleError(ValueError):
    """A sample of which no clip can be made; the message names its file and row, and what is wrong."""


class UnusableVideoError(UnusableSampleError):
    """It is the video, or what lies beside it: no question about it can be used."""


@dataclass(frozen=True)
class Clip:
    """K frames of a video.

    Attributes:
        frames: (K, H, W, 3) uint8 RGB.
        indices: (K,) which frames of the video they are.
        geometry: of these frames, or None.
        seconds_per_frame: mean time from one frame of the clip to the next; None where nobody knows.
        report: the sampler's.
    """

    frames: np.ndarray
    indices: np.ndarray
    geometry: VideoGeometry | None
    seconds_per_frame: float | None
    report: dict[str, Any]


class ClipReader:
    """Reads clips, and keeps the last.

    Args:
        sampler: config of a frame sampler (docs/frame_sampling.md), e.g. dict(type='sa', num_frames=8, fill=True).
        needs: arrays that the geometry file must hold; empty: poses are read where they are, and nothing is needed.

    Raises:
        ValueError: no such sampler, or settings that it does not take.
    """

    def __init__(self, sampler: Mapping[str, Any], needs: Sequence[str] = ()) -> None:
        self.sampler = build_sampler(sampler)
        self.needs = tuple(needs)
        self.looks = sampler['type'] not in _BLIND
        self.last: tuple[tuple[Any, ...], Clip] | None = None
        self.wanted = tuple(name for name in ARRAYS if name not in ('tokens', *_SEEN) or (self.looks and name in _SEEN))

    def __call__(self, sample: Sample) -> Clip:
        """Chooses, decodes, and takes what is known of these frames; nobody may write into what is returned.

        Raises:
            UnusableVideoError: naming the sample's file and row, and what of its video, poses or frames cannot be used.
        """
        video = sample.video, sample.geometry
        if self.last is not None and self.last[0] == video:
            return self.last[1]
        self.last = None
        try:
            clip = self._clip(sample)
        except (ValueError, OSError, cv2.error) as error:
            raise UnusableVideoError(f'{sample.where}: {error}') from error
        self.last = video, clip
        return clip

    def _clip(self, sample: Sample) -> Clip:
        opened = open_video(sample.video)
        geometry = None
        if sample.geometry is not None:
            geometry = read_geometry(sample.geometry, opened.num_frames, self.needs, self.wanted)
        elif self.needs:
            raise ValueError(f'{sample.video} has no npz file beside it with {", ".join(self.needs)}')
        video = Video(opened.num_frames, str(sample.video), opened.stamps_s) if geometry is None else geometry.video()
        if not self.looks:
            video = replace(video, visible=None)
        chosen, report = self.sampler(video)
        indices = chosen if geometry is None else geometry.frames[chosen]
        frames = opened.read(indices)
        if geometry is not None:
            check_image_size(geometry, (frames.shape[1], frames.shape[2]))
        known = None if geometry is None else geometry.take(indices)
        stamps_s = known.stamps_s if known is not None and known.stamps_s is not None else (
            None if opened.stamps_s is None else opened.stamps_s[indices])
        seconds = None if stamps_s is None or len(indices) < 2 else float(np.ptp(stamps_s) / (len(indices) - 1))
        return Clip(frames, indices, known, seconds, report)
