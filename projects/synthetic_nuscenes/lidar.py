"""Sensor stage: a sweep as the real sensor would write it; a scene and a time in, (N, 5) float32 out (LiDAR frame)."""

from __future__ import annotations

import numpy as np

from projects.synthetic_nuscenes.raycast import GROUND, NOTHING, RayGrid, RayHits, cast_rays
from projects.synthetic_nuscenes.rig import ego_from_lidar
from projects.synthetic_nuscenes.snapshot import SceneSnapshots
from projects.synthetic_nuscenes.transforms import FloatArray

RANGE_NOISE_M = 0.02
SWEEP_S = 0.05
# Share of each low ring that ends on the ego's own roof, from the lowest ring up.
_ROOF_SHARE = np.array([0.84, 0.74, 0.62, 0.54, 0.48, 0.27, 0.12, 0.05, 0.04, 0.03, 0.02] + [0.0] * 21)
_MOTION_CHUNKS = 25


def _truth(
    scene_snapshots: SceneSnapshots, grid: RayGrid, t_s: float, sweep_motion: bool
) -> tuple[RayHits, np.ndarray]:
    """Noise-free hits and the reflectance of each primitive."""
    scene = scene_snapshots.scene
    if not sweep_motion:
        primitives = scene_snapshots.at(t_s)
        hits = cast_rays(grid, scene.ego_pose(t_s) @ ego_from_lidar(), primitives, scene.ground)
        return hits, primitives.reflectance
    edges = np.linspace(0, grid.steps, _MOTION_CHUNKS + 1).astype(int)
    parts = []
    for first, last in zip(edges, edges[1:]):
        fired_s = t_s - SWEEP_S * (1 - (first + last) / 2 / grid.steps)
        primitives = scene_snapshots.at(fired_s)
        pose = scene.ego_pose(fired_s) @ ego_from_lidar()
        hits = cast_rays(grid, pose, primitives, scene.ground, (int(first), int(last)))
        rows = slice(first * 32, last * 32)
        parts.append((hits.range_m[rows], hits.surface[rows], hits.cos_incidence[rows]))
    joined = [np.concatenate(column) for column in zip(*parts)]
    return RayHits(*joined), primitives.reflectance


def take_sweep(
    scene_snapshots: SceneSnapshots, grid: RayGrid, t_s: float, rng: np.random.Generator, sweep_motion: bool = False
) -> FloatArray:
    """One turn of the LiDAR that ends at t.

    Args:
        scene_snapshots: the scene.
        grid: rays.
        t_s: stamp, seconds since the scene's first keyframe.
        rng: stream of this sweep.
        sweep_motion: take each column at its own time and pose; else everything as it is at the stamp.

    Returns:
        (A * 32, 5) float32: x, y, z (m, LiDAR frame), intensity (0 to 255, whole), ring. Every firing is there;
        one without an echo lies 0.15 to 0.3 m from the origin, as in the real files.
    """
    hits, reflectance = _truth(scene_snapshots, grid, t_s, sweep_motion)
    count = len(hits.range_m)
    noise, spread = rng.standard_normal(count), rng.standard_normal(count)
    chance, stray = rng.random(count), rng.random(count)
    far = np.minimum(hits.range_m, 1000.0)
    lost = 0.01 + 0.06 * grid.ring / 31 + 0.5 * (far / 100.0) ** 2 + 0.25 * (1 - hits.cos_incidence) ** 6
    missing = (hits.surface == NOTHING) | (chance < lost)

    paint = np.where(hits.surface >= 0, reflectance[np.maximum(hits.surface, 0)], 0.0)
    asphalt = 5.0 + 0.8 * np.minimum(far, 25.0)
    gain = 0.55 + 0.45 * hits.cos_incidence
    intensity = np.where(hits.surface == GROUND, asphalt, paint * gain) * (1 + 0.25 * spread)
    range_m = far + RANGE_NOISE_M * noise

    range_m = np.where(missing, 0.15 + 0.15 * stray, range_m)
    intensity = np.where(missing, 12.0 + 6.0 * spread, intensity)
    # LiDAR y is forward: the roof lies ahead and behind, within a share of each quarter turn.
    off_axis = np.arctan2(np.abs(grid.directions[:, 0]), np.abs(grid.directions[:, 1])) / (np.pi / 2)
    on_roof = off_axis < _ROOF_SHARE[grid.ring]
    range_m = np.where(on_roof, 0.5 + 0.03 * grid.ring + 0.05 * np.abs(noise), range_m)
    intensity = np.where(on_roof, 29.0 + 9.0 * spread, intensity)

    sweep = np.empty((count, 5), dtype=np.float32)
    sweep[:, :3] = grid.directions * range_m[:, None]
    sweep[:, 3] = np.rint(np.clip(intensity, 0.0, 255.0))
    sweep[:, 4] = grid.ring
    return sweep
