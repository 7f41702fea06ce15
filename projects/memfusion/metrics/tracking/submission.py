"""Metric, tracks. In: a submission of detection, the infos of its samples. Out: the same boxes as a submission of tracking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .tracker import GreedyTracker

Entries = Sequence[Mapping[str, Any]]


def track_results(results: Mapping[str, Entries], infos: Sequence[Mapping[str, Any]], max_distance_m: Mapping[str, float],
                  max_age: int = 3, score_thr: float = 0.0) -> dict[str, list[dict[str, Any]]]:
    """Links the boxes of each scene.

    Args:
        results: entries of detection by sample token.
        infos: keyframes of whole scenes, in any order.
        max_distance_m, max_age: as GreedyTracker's.
        score_thr: boxes that score less are left out.

    Returns:
        Entries of tracking by sample token, in the order of the infos' scenes and of time. Classes that are not tracked are
        left out; what the detector says of hidden boxes (`seen_score`) stays.
    """
    scenes: dict[str, list[Mapping[str, Any]]] = {}
    for info in infos:
        scenes.setdefault(info['scene_token'], []).append(info)
    tracked: dict[str, list[dict[str, Any]]] = {}
    for number, frames in enumerate(scenes.values()):
        tracker, last_s = GreedyTracker(max_distance_m, max_age), min(info['timestamp'] for info in frames)
        for info in sorted(frames, key=lambda one: one['timestamp']):
            entries = [one for one in results.get(info['token'], ()) if one['detection_score'] >= score_thr]
            numbers = tracker.step(
                [one['detection_name'] for one in entries], _columns(entries, 'translation'), _columns(entries, 'velocity'),
                np.array([one['detection_score'] for one in entries]), info['timestamp'] - last_s)
            tracked[info['token']] = [_entry(one, f'{number}_{track}') for one, track in zip(entries, numbers) if track >= 0]
            last_s = info['timestamp']
    return tracked


def _columns(entries: Entries, key: str) -> np.ndarray:
    """(k, 2) on the ground."""
    return np.array([one[key][:2] for one in entries], dtype=np.float64).reshape(-1, 2)


def _entry(box: Mapping[str, Any], track: str) -> dict[str, Any]:
    kept = {key: box[key] for key in ('sample_token', 'translation', 'size', 'rotation', 'velocity')}
    more = {key: box[key] for key in ('exists_score', 'seen_score') if key in box}
    return kept | more | dict(tracking_id=track, tracking_name=box['detection_name'], tracking_score=box['detection_score'])
