"""Sensor stage: exact LiDAR ranges; primitives and a LiDAR pose in, range and surface of every ray out (LiDAR frame).

Only rays inside a solid's window of azimuth and elevation are tested against it; all pairs are tested in one go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.rig import RING_ELEVATIONS_DEG, SWEEP_START_DEG
from projects.synthetic_nuscenes.road import Ground
from projects.synthetic_nuscenes.snapshot import Primitives
from projects.synthetic_nuscenes.transforms import FloatArray, apply, box_corners, invert

MAX_RANGE_M = 105.0
GROUND = -1
NOTHING = -2
_START_RAD = np.radians(SWEEP_START_DEG + 90.0)


@dataclass(frozen=True)
class RayGrid:
    """Rays of a sweep in firing order: column by column, clockwise, 32 rings from low to high in each.

    Attributes:
        directions: (A * 32, 3) unit vectors in the LiDAR frame.
        ring: (A * 32,) ring index.
        steps: A.
    """

    directions: FloatArray
    ring: np.ndarray
    steps: int


@dataclass(frozen=True)
class RayHits:
    """What each ray met.

    Attributes:
        range_m: (N,), inf where nothing.
        surface: (N,) index of the primitive, `GROUND` or `NOTHING`.
        cos_incidence: (N,) in [0, 1].
    """

    range_m: FloatArray
    surface: np.ndarray
    cos_incidence: FloatArray


def make_ray_grid(steps: int) -> RayGrid:
    """Rays of one turn with `steps` columns."""
    elevation = np.radians(RING_ELEVATIONS_DEG)
    azimuth = _START_RAD - 2 * np.pi * (np.arange(steps) + 0.5) / steps
    horizontal = np.cos(elevation)[None]
    directions = np.stack(
        [
            np.cos(azimuth)[:, None] * horizontal,
            np.sin(azimuth)[:, None] * horizontal,
            np.broadcast_to(np.sin(elevation)[None], (steps, 32)),
        ],
        axis=-1,
    )
    return RayGrid(directions.reshape(-1, 3), np.tile(np.arange(32), steps), steps)


def _windows(centers: FloatArray, rotations: FloatArray, half: FloatArray, steps: int) -> tuple[np.ndarray, ...]:
    """First column, number of columns, first ring, number of rings for each solid (conservative)."""
    corners = box_corners(centers, rotations, half)
    turned = _START_RAD - np.arctan2(centers[:, 1], centers[:, 0])
    corner_turned = _START_RAD - np.arctan2(corners[..., 1], corners[..., 0])
    spread = (corner_turned - turned[:, None] + np.pi) % (2 * np.pi) - np.pi
    local = np.einsum('mji,mj->mi', rotations, -centers)[:, :2]
    nearest = np.linalg.norm(np.maximum(np.abs(local) - half[:, :2], 0), axis=1) * 0.97 - 0.05
    inside = nearest < 0.1
    low = np.where(inside, -np.pi, spread.min(axis=1))
    high = np.where(inside, np.pi, spread.max(axis=1))
    per_rad = steps / (2 * np.pi)
    first = np.floor((turned + low) * per_rad - 0.5).astype(int)
    count = np.minimum(np.ceil((turned + high) * per_rad - 0.5).astype(int) - first + 1, steps)
    nearest = np.maximum(nearest, 0.1)
    farthest = np.hypot(corners[..., 0], corners[..., 1]).max(axis=1)
    bottom, top = corners[..., 2].min(axis=1), corners[..., 2].max(axis=1)
    lowest = np.arctan2(bottom, np.where(bottom < 0, nearest, farthest))
    highest = np.arctan2(top, np.where(top > 0, nearest, farthest))
    rings = np.radians(RING_ELEVATIONS_DEG)
    first_ring = np.searchsorted(rings, lowest - 1e-3)
    ring_count = np.searchsorted(rings, highest + 1e-3) - first_ring
    count = np.where((nearest < MAX_RANGE_M) & (ring_count > 0), count, 0)
    return first, count, first_ring, ring_count


def _pairs(windows: tuple[np.ndarray, ...], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """All (solid, ray) candidates as two flat index arrays."""
    first, count, first_ring, ring_count = windows
    total = count * ring_count
    solid = np.repeat(np.arange(len(total)), total)
    within = np.arange(len(solid)) - np.repeat(np.cumsum(total) - total, total)
    rings = ring_count[solid]
    column = (first[solid] + within // rings) % steps
    return solid, column * 32 + first_ring[solid] + within % rings


def _hit_boxes(origin: FloatArray, direction: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slab test of P rays in box frames: range (inf where missed) and cosine of incidence."""
    with np.errstate(divide='ignore', invalid='ignore'):
        center = -origin / direction
        width = np.abs(half / direction)
    enter = center - width
    near, far = enter.max(axis=1), (center + width).min(axis=1)
    axis = enter.argmax(axis=1)
    cosine = np.abs(np.take_along_axis(direction, axis[:, None], axis=1)[:, 0])
    return np.where((near <= far) & (near > 0), near, np.inf), cosine


def _hit_blobs(origin: FloatArray, direction: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ray-ellipsoid test of P rays: range (inf where missed) and cosine of incidence."""
    scaled_origin, scaled_direction = origin / half, direction / half
    a = (scaled_direction**2).sum(axis=1)
    b = (scaled_direction * scaled_origin).sum(axis=1)
    discriminant = b**2 - a * ((scaled_origin**2).sum(axis=1) - 1)
    near = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    normal = (origin + near[:, None] * direction) / half**2
    cosine = np.abs((normal * direction).sum(axis=1)) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
    return np.where((discriminant > 0) & (near > 0), near, np.inf), cosine


def cast_rays(
    grid: RayGrid,
    global_from_lidar: FloatArray,
    primitives: Primitives,
    ground: Ground,
    columns: tuple[int, int] | None = None,
) -> RayHits:
    """First surface along every ray.

    Args:
        grid: rays in the LiDAR frame.
        global_from_lidar: (4, 4).
        primitives: surfaces in the world.
        ground: the ground plane.
        columns: only test solids for columns first <= c < last (the others then see the ground only).

    Returns:
        ranges, surfaces and incidence for all A * 32 rays.
    """
    lidar_from_global = invert(global_from_lidar)
    centers = apply(lidar_from_global, primitives.centers)
    rotations = np.einsum('ij,mjk->mik', lidar_from_global[:3, :3], primitives.rotations)
    half = primitives.half_sizes
    solid, ray = _pairs(_windows(centers, rotations, half, grid.steps), grid.steps)
    if columns is not None:
        keep = (ray // 32 >= columns[0]) & (ray // 32 < columns[1])
        solid, ray = solid[keep], ray[keep]

    up = np.einsum('ij,j->i', lidar_from_global[:3, :3], ground.normal)
    origin = global_from_lidar[:3, 3]
    height = (origin[2] - float(ground.height(origin[0], origin[1]))) * ground.normal[2]
    descent = -np.einsum('ni,i->n', grid.directions, up)
    range_m = np.where(descent > 1e-4, height / np.maximum(descent, 1e-4), np.inf)
    surface = np.where(np.isfinite(range_m), GROUND, NOTHING)
    cosine = np.where(surface == GROUND, descent, 1.0)

    toward = np.einsum('pji,pj->pi', rotations.astype(np.float32)[solid], grid.directions.astype(np.float32)[ray])
    start = np.einsum('mji,mj->mi', rotations, -centers).astype(np.float32)[solid]
    size = half.astype(np.float32)[solid]
    distance, slant = _hit_boxes(start, toward, size)
    blob = np.nonzero(primitives.is_blob[solid])[0]
    if len(blob):
        distance[blob], slant[blob] = _hit_blobs(start[blob], toward[blob], size[blob])
    nearest = range_m.astype(np.float32)
    np.minimum.at(nearest, ray, distance)
    won = np.nonzero((distance == nearest[ray]) & np.isfinite(distance))[0]
    range_m[ray[won]], surface[ray[won]], cosine[ray[won]] = distance[won], solid[won], slant[won]
    beyond = range_m > MAX_RANGE_M
    range_m[beyond], surface[beyond] = np.inf, NOTHING
    return RayHits(range_m, surface, np.clip(cosine, 0.0, 1.0))
