"""Geometry, frame sampling. In: a video and the frames chosen of it. Out: how much they see, and how alike they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from .pose_distance import angles_and_distances
from .video import Video
from .voxel_sets import VoxelSets


def describe(video: Video, frames: np.ndarray, pool: np.ndarray) -> dict[str, Any]:
    """What a choice is like. Frames are taken in pairs, the first with the second and so on, as a video model merges them.

    Args:
        frames: (n,) in the order in which the model is given them.
        pool: (m,) frames that stand for the video: coverage is the share of the voxels seen by the pool and the choice.

    Returns:
        returned: n. Where the video has stamps: stamps_s. Where it knows what frames see: coverage; redundancy, the share of
        what the chosen frames see that another has seen already, 1 - union / sum; overlap (intersection over union) of
        neighbours (all that follow each other, mean) and of pairs (mean, min). Where it has poses: pair_angle_deg and
        pair_baseline_m, mean and max. None where there is no pair, or nothing is seen.
    """
    found: dict[str, Any] = dict(returned=len(frames))
    if video.stamps_s is not None:
        found.update(stamps_s=video.stamps_s[frames].tolist())
    first, second = frames[0:len(frames) // 2 * 2:2], frames[1::2]
    if video.visible is not None:
        asked = np.union1d(pool, frames)
        found.update(describe_sets(video.visible(asked), np.searchsorted(asked, frames)))
    if video.world_from_cam is not None:
        angle, baseline = (np.diag(table) for table in angles_and_distances(video.world_from_cam[first],
                                                                           video.world_from_cam[second]))
        angle = np.degrees(angle)
        found.update(pair_angle_deg_mean=_or_none(angle, np.mean), pair_angle_deg_max=_or_none(angle, np.max),
                     pair_baseline_m_mean=_or_none(baseline, np.mean), pair_baseline_m_max=_or_none(baseline, np.max))
    return found


def describe_sets(sets: VoxelSets, rows: np.ndarray) -> dict[str, float | None]:
    """The part of `describe` that is about voxels; `rows` are the chosen ones of `sets`."""
    union, seen, everything = sets.union_count(rows), int(sets.counts[rows].sum()), sets.union_count()
    neighbours = np.array([sets.overlap(int(a), np.array([b]))[0] for a, b in zip(rows[:-1], rows[1:])])
    pairs = neighbours[::2]
    return dict(coverage=union / everything if everything else None, redundancy=1 - union / seen if seen else None,
                neighbour_overlap=_or_none(neighbours, np.mean), pair_overlap_mean=_or_none(pairs, np.mean),
                pair_overlap_min=_or_none(pairs, np.min))


def _or_none(values: np.ndarray, function: Any) -> float | None:
    return float(function(values)) if len(values) else None
