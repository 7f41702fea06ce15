"""Doctor. In: the evidence of one camera's frames. Out: its verdict by LiDAR edges against image edges."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .edge_scores import CameraFrameEvidence, ask_witnesses
from .hypotheses import Grid, span
from .verdict import CameraVerdict, Estimate, Limits, estimate, fit_scores, resampled_peaks

ROTATION = Grid(yaw_deg=span(3, 0.1), pitch_deg=span(3, 0.25))  # wider than what is found, so that a peak is a peak
ROLL = Grid(yaw_deg=span(0.4, 0.2), pitch_deg=span(0.5, 0.25), roll_deg=span(3, 0.5))
DELAY = Grid(yaw_deg=span(2.4, 0.3), pitch_deg=span(0.5, 0.5), delay_ms=span(150, 25))
SMALL = Grid(yaw_deg=span(0.6, 0.2), pitch_deg=span(0.75, 0.25))
TIGHT = Grid(yaw_deg=span(0.2, 0.2), pitch_deg=span(0.25, 0.25))
ZOOM = Grid(yaw_deg=span(0.6, 0.3), pitch_deg=span(0.5, 0.25), zoom=span(0.24, 0.03))
MANY_FRAMES = 5
YAW = Limits(0.5, 0.6, 'deg')
PITCH_FEW, PITCH = Limits(1.0, 1.0, 'deg'), Limits(0.5, 0.6, 'deg')
ROLL_LIMITS = Limits(0.75, 0.6, 'deg')
DELAY_LIMITS = Limits(60.0, 30.0, 'ms')
ZOOM_LIMITS = Limits(0.06, 0.04, '')
_MIN_SPEED_M_S = 1.0
_NO_FIT, _NO_FIT_WITNESSES = 0.25, 250
_MIN_WITNESSES = 20
_BETTER, _BETTER_PAIR = 3.0, 2.0  # standard errors; right pairs of the real keyframe lose at least 2.7 when exchanged
_MIN_LAG_S, _MIN_CAMERAS, _RAW_GAIN = 0.005, 3, 0.5


def examine_camera(verdict: CameraVerdict, frames: Sequence[CameraFrameEvidence]) -> None:
    """Adds estimates and problems to a camera's verdict."""
    witnesses = ask_witnesses(frames, ROTATION)
    verdict.num_witnesses = len(witnesses.values)
    few = len(frames) < MANY_FRAMES
    if verdict.num_witnesses < _MIN_WITNESSES:
        verdict.notes.append(f'images not judged: {verdict.num_witnesses} LiDAR edges seen, {_MIN_WITNESSES} needed')
        return
    scores = fit_scores(witnesses)
    middle = tuple(size // 2 for size in scores.shape)
    verdict.fit, verdict.file_fit = float(scores.max()), float(scores[middle])
    verdict.surface = scores[:, :, 0, 0, 0]
    peaks = resampled_peaks(witnesses, ('yaw_deg', 'pitch_deg'))
    yaw_limits = replace(YAW, tolerance=max(YAW.tolerance, *(frame.blind_deg for frame in frames)))
    verdict.estimates = [estimate('yaw_deg', peaks['yaw_deg'], yaw_limits),
                         estimate('pitch_deg', peaks['pitch_deg'], PITCH_FEW if few else PITCH)]
    # a peak that is none, as with a wrong focal length, would lead the others astray
    center = {found.name: -found.fault if found.observable else 0.0 for found in verdict.estimates}
    verdict.estimates += _few_frames(len(frames)) if few else _many_frames(frames, center)
    if verdict.num_witnesses >= _NO_FIT_WITNESSES and verdict.fit / math.sqrt(verdict.num_witnesses) < _NO_FIT:
        verdict.problems.append('LiDAR edges meet image edges nowhere near the file\'s values')
    verdict.problems.extend(f'{found.text()} off' for found in verdict.estimates if found.is_faulty)


def _moves(frame: CameraFrameEvidence) -> bool:
    return float(np.linalg.norm(frame.velocity[:3])) > _MIN_SPEED_M_S


def _few_frames(count: int) -> list[Estimate]:
    reason = f'{count} frame{"s" if count > 1 else ""}, {MANY_FRAMES} needed'
    return [Estimate(name, 0.0, 0.0, 0.0, limits, False, reason) for name, limits in
            (('roll_deg', ROLL_LIMITS), ('delay_ms', DELAY_LIMITS), ('zoom', ZOOM_LIMITS))]


def _many_frames(frames: Sequence[CameraFrameEvidence], center: Mapping[str, float]) -> list[Estimate]:
    found = []
    for name, grid, limits in (('roll_deg', ROLL.around(**center), ROLL_LIMITS),
                               ('delay_ms', DELAY.around(pitch_deg=center['pitch_deg']), DELAY_LIMITS),
                               ('zoom', ZOOM.around(**center), ZOOM_LIMITS)):
        moving = [frame for frame in frames if _moves(frame)]
        chosen = moving if name == 'delay_ms' else frames
        witnesses = ask_witnesses(chosen if len(chosen) >= MANY_FRAMES else [], grid)
        if len(witnesses.values) < _MIN_WITNESSES:
            found.append(Estimate(name, 0.0, 0.0, 0.0, limits, False, f'{len(chosen)} frames in motion, {MANY_FRAMES} needed'))
        else:
            found.append(estimate(name, resampled_peaks(witnesses, (name,))[name], limits))
    return found


def find_exchanged(evidence: Mapping[str, Sequence[CameraFrameEvidence]]) -> dict[str, list[str]]:
    """Cameras that another camera's images fit better than their own, alone or as a pair that has exchanged them."""
    fits = {camera: {other: _fit_of(frames, others, SMALL) for other, others in evidence.items() if len(others) == len(frames)}
            for camera, frames in evidence.items()}
    problems = {}
    for camera, found in fits.items():
        gains = {other: fit - found[camera] for other, fit in found.items()}
        pair_gains = {other: gain + fits[other][camera] - fits[other][other] for other, gain in gains.items()}
        best, partner = max(gains, key=gains.__getitem__), max(pair_gains, key=pair_gains.__getitem__)
        if gains[best] > _BETTER or pair_gains[partner] > _BETTER_PAIR:
            other = best if gains[best] > _BETTER else partner
            problems[camera] = [f'the images of {other} fit it better than its own ({found[other]:.1f} against '
                                f'{found[camera]:.1f}): exchanged?']
    return problems


def points_are_raw(evidence: Mapping[str, Sequence[CameraFrameEvidence]]) -> bool:
    """Whether LiDAR points that were taken when the ego was elsewhere fit the images better than points as at the stamp.

    nuScenes moves the points of a turn to its end; other data sets leave them as they were taken, which looks like a yaw of
    the side cameras. Most of at least three cameras must say so: one alone may have a wrong stamp. Only frames in which the
    ego moves, and cameras whose stamp differs from the LiDAR's, can tell.
    """
    gains = []
    for frames in evidence.values():
        telling = [frame for frame in frames if _moves(frame) and abs(frame.lag_s) > _MIN_LAG_S and frame.turn_s]
        if len(telling) >= MANY_FRAMES:
            raw = [with_raw_points(frame) for frame in telling]
            gains.append(_fit_of(raw, raw, TIGHT) - _fit_of(telling, telling, TIGHT))
    return len(gains) >= _MIN_CAMERAS and float(np.median(gains)) > _RAW_GAIN


def with_raw_points(frame: CameraFrameEvidence) -> CameraFrameEvidence:
    """As if each point had been taken in its turn, not moved to the stamp, which is where the turn ends: moves it there."""
    age_s = (1.0 - frame.edges.share) * frame.turn_s
    points = frame.edges.points_m
    drift = frame.velocity[:3] + np.cross(frame.velocity[3:], points)
    return replace(frame, edges=replace(frame.edges, points_m=points - drift * age_s[:, None], age_s=age_s))


def _fit_of(frames: Sequence[CameraFrameEvidence], others: Sequence[CameraFrameEvidence], grid: Grid) -> float:
    """Mean image edge strength at LiDAR edges, over its standard error, at the best of a few small corrections."""
    mixed = [replace(frame, image_edges=other.image_edges) for frame, other in zip(frames, others, strict=True)]
    values = ask_witnesses(mixed, grid, center=False).values.astype(np.float64)
    if len(values) < _MIN_WITNESSES:
        return 0.0
    return float((values.sum(axis=0) / np.sqrt((values ** 2).sum(axis=0)).clip(1e-9)).max())
