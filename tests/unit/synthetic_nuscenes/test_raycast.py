"""The culled ray caster against a naive one, and against hand answers."""

import numpy as np

from projects.synthetic_nuscenes.lidar import take_sweep
from projects.synthetic_nuscenes.raycast import GROUND, cast_rays, make_ray_grid
from projects.synthetic_nuscenes.rig import ego_from_lidar
from projects.synthetic_nuscenes.road import Ground
from projects.synthetic_nuscenes.snapshot import Primitives, SceneSnapshots
from projects.synthetic_nuscenes.transforms import apply, invert


def _one_box(center, half):
    return Primitives(
        np.array([center], dtype=float), np.eye(3)[None], np.array([half], dtype=float), np.array([False]),
        np.array([0]), np.array([20.0]), np.zeros((1, 3)), ('plain',),
    )


def test_ground_range_is_height_over_sine():
    grid = make_ray_grid(16)
    pose = np.eye(4)
    pose[2, 3] = 1.84
    hits = cast_rays(grid, pose, _one_box([500, 0, 0], [1, 1, 1]), Ground(0, 0, 0, 0))
    assert (hits.surface[grid.ring == 0] == GROUND).all()
    np.testing.assert_allclose(hits.range_m[grid.ring == 0], 1.84 / np.sin(np.radians(30.67)), rtol=1e-9)
    assert np.isinf(hits.range_m[grid.ring == 31]).all()


def test_wall_ahead_is_met_at_its_distance():
    grid = make_ray_grid(360)
    pose = np.eye(4)
    pose[2, 3] = 1.84
    hits = cast_rays(grid, pose, _one_box([0, 11, 2], [3, 1, 4]), Ground(0, 0, 0, 0))
    met = hits.surface == 0
    np.testing.assert_allclose(grid.directions[met, 1] * hits.range_m[met], 10.0, atol=1e-4)
    assert met.sum() > 100


def test_culling_loses_no_hit(nano_world):
    scene = nano_world.scene('scene-0061')
    grid = make_ray_grid(64)
    primitives = SceneSnapshots(scene).at(1.5)
    global_from_lidar = scene.ego_pose(1.5) @ ego_from_lidar()
    hits = cast_rays(grid, global_from_lidar, primitives, scene.ground)
    naive = np.full(len(grid.ring), np.inf)
    directions = grid.directions @ global_from_lidar[:3, :3].T
    origin = global_from_lidar[:3, 3]
    descends = directions @ scene.ground.normal < -1e-4
    naive[descends] = origin[2] / -directions[descends, 2]
    for index in range(len(primitives.centers)):
        rotation, half = primitives.rotations[index], primitives.half_sizes[index]
        start, toward = rotation.T @ (origin - primitives.centers[index]), directions @ rotation
        if primitives.is_blob[index]:
            a, b = ((toward / half) ** 2).sum(1), (toward * start / half**2).sum(1)
            root = b**2 - a * (((start / half) ** 2).sum() - 1)
            near = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        else:
            with np.errstate(divide='ignore'):
                one, two = (-half - start) / toward, (half - start) / toward
            near, far = np.minimum(one, two).max(1), np.maximum(one, two).min(1)
            near = np.where(near <= far, near, np.inf)
        naive = np.minimum(naive, np.where(near > 0, near, np.inf))
    naive[naive > 105.0] = np.inf
    same = np.isclose(naive, hits.range_m, atol=2e-3) | (np.isinf(naive) & np.isinf(hits.range_m))
    assert same.mean() > 0.9985
    both = np.isfinite(naive) & np.isfinite(hits.range_m)
    assert np.median(np.abs(naive[both] - hits.range_m[both])) < 1e-4
    assert np.allclose(apply(invert(global_from_lidar), apply(global_from_lidar, grid.directions)), grid.directions)


def test_moving_sweep_is_straight_again_at_each_columns_own_pose(nano_world):
    """Raw points of a turning ego fit the walls when each column is moved by its own pose, not by the stamp's."""
    scene, grid = nano_world.scene('scene-0103'), make_ray_grid(200)
    sweep = take_sweep(SceneSnapshots(scene), grid, 1.5, np.random.default_rng(0), sweep_motion=True)
    points = sweep[:, :3].astype(np.float64)
    fired_s = 1.5 - 0.05 * (1 - (np.arange(len(points)) // 32 + 0.5) / 200)
    own = np.stack([apply(scene.ego_pose(t) @ ego_from_lidar(), point) for t, point in zip(fired_s, points)])
    late = apply(scene.ego_pose(1.5) @ ego_from_lidar(), points)
    near = np.linalg.norm(points, axis=1)
    solids = [solid for solid in scene.solids if solid.shape == 'box']
    errors = []
    for moved in (own, late):
        distance = np.min([solid.surface_distance(moved) for solid in solids], axis=0)
        errors.append(distance)
    on_wall = (errors[0] < 0.25) & (own[:, 2] > 1.0) & (near > 5.0) & (near < 50.0)
    assert on_wall.sum() > 200
    assert np.median(errors[0][on_wall]) < 0.03 < np.median(errors[1][on_wall])
