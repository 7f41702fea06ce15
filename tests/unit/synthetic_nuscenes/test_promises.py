"""Statistics that the specification promises, measured on the nano data set and on larger worlds."""

import numpy as np
import pytest

from projects.synthetic_nuscenes.annotate import points_in_agent
from projects.synthetic_nuscenes.lidar import take_sweep
from projects.synthetic_nuscenes.overlap import rectangles_overlap
from projects.synthetic_nuscenes.raycast import cast_rays, make_ray_grid
from projects.synthetic_nuscenes.rig import ego_from_lidar
from projects.synthetic_nuscenes.settings import make_settings
from projects.synthetic_nuscenes.snapshot import SceneSnapshots
from projects.synthetic_nuscenes.taxonomy import BODIES, KINDS, LOOKALIKE_PAIRS
from projects.synthetic_nuscenes.transforms import apply, yaw_rotation
from projects.synthetic_nuscenes.world import EGO_CENTER_AHEAD_M, EGO_SIZE_LW_M, build_world

OCCLUSION_VAL = make_settings('occlusion', 0, scene_names=('scene-0103', 'scene-0916'))


def test_enough_boxes_and_few_points_on_each(nano_nusc):
    assert min(len(sample['anns']) for sample in nano_nusc.sample) >= 25
    points = np.array([row['num_lidar_pts'] for row in nano_nusc.sample_annotation])
    assert 3 <= np.median(points[points > 0]) <= 15


def test_some_hidden_objects_were_well_seen_a_second_before(nano_nusc):
    hidden = 0
    for row in nano_nusc.sample_annotation:
        if row['num_lidar_pts'] == 0 and row['prev']:
            before = nano_nusc.get('sample_annotation', row['prev'])
            seen = [before['num_lidar_pts']]
            if before['prev']:
                seen.append(nano_nusc.get('sample_annotation', before['prev'])['num_lidar_pts'])
            hidden += max(seen) >= 5
    assert hidden >= 5


def test_sweep_looks_like_the_real_sensors(lidar_records, nano_root):
    near, bright, rings = [], [], []
    for _, _, record in lidar_records:
        sweep = np.fromfile(nano_root / record['filename'], dtype=np.float32).reshape(-1, 5)
        near.append((np.linalg.norm(sweep[:, :3], axis=1) < 1.0).mean())
        bright.append(sweep[:, 3].mean())
        rings.append(np.bincount(sweep[:, 4].astype(int), minlength=32))
        assert sweep[:, 3].min() >= 0 and sweep[:, 3].max() <= 255 and (sweep[:, 3] % 1 == 0).all()
        far = sweep[np.linalg.norm(sweep[:, :3], axis=1) > 1.0]
        elevation = np.degrees(np.arcsin(far[:, 2] / np.linalg.norm(far[:, :3], axis=1)))
        expected = -30.67 + far[:, 4] * (10.67 + 30.67) / 31
        np.testing.assert_allclose(elevation, expected, atol=1e-3)
    assert 0.20 < np.mean(near) < 0.28 and 16 < np.mean(bright) < 24
    assert (np.array(rings) == 200).all()


@pytest.mark.parametrize('preset, seed', [('nano', 0), ('nano', 5), ('tiny', 1), (OCCLUSION_VAL, 0)])
def test_nothing_ever_overlaps(preset, seed):
    for scene in build_world(preset, seed).scenes:
        times = np.arange(0.0, scene.duration_s, 0.23)
        tracks = [agent.track(times) for agent in scene.agents]
        halves = [np.array(agent.size_lwh_m[:2]) / 2 for agent in scene.agents]
        for solid in scene.solids:
            tracks.append(np.tile([*solid.center_m[:2], solid.yaw_rad], (len(times), 1)))
            halves.append(solid.half_size_m[:2])
        ego = np.stack(scene.ego_motion.pose(times), axis=-1)
        ego[:, :2] += EGO_CENTER_AHEAD_M * np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], -1)
        tracks.append(ego)
        halves.append(np.array(EGO_SIZE_LW_M) / 2)
        all_tracks, all_halves = np.stack(tracks), np.stack(halves)
        for i in range(len(tracks) - 1):
            offset = all_tracks[i + 1 :, :, :2] - all_tracks[i, :, :2]
            close = np.hypot(offset[..., 0], offset[..., 1]).min(axis=1) < 40
            rest = np.nonzero(close)[0] + i + 1
            hits = rectangles_overlap(all_tracks[i][None], all_halves[i], all_tracks[rest], all_halves[rest][:, None])
            assert not hits.any(), (scene.name, i)


def test_overlap_of_turned_squares_by_hand():
    square = np.array([1.0, 1.0])
    turned = np.array([[2.4, 0.0, np.pi / 4]])
    assert rectangles_overlap(np.zeros((1, 3)), square, turned, square).all()
    turned[0, 0] = 2.42
    assert not rectangles_overlap(np.zeros((1, 3)), square, turned, square).any()


def test_bodies_lie_inside_their_boxes():
    for kind in KINDS.values():
        for part in BODIES[kind.body]:
            assert -0.5 < part.x[0] < part.x[1] < 0.5 and -0.5 < part.y[0] < part.y[1] < 0.5
            assert 0 < part.z[0] < part.z[1] < 1


def _lidar_features(agent, scene, cloud):
    """Size, place, speed, and what the sweep shows of an agent: count, extents, height, intensity of its points."""
    position, yaw = agent.pose(1.0)
    local = (np.linalg.inv(scene.ego_pose(1.0)) @ [*position, 1.0])[:2]
    offset = (cloud[:, :3] - position) @ yaw_rotation(np.array(yaw))
    inside = (np.abs(offset) <= np.asarray(agent.size_lwh_m) / 2).all(axis=1)
    if inside.sum() < 2:
        return None
    own, bright = offset[inside], cloud[inside, 3]
    shape = [np.log(inside.sum()), *own.mean(axis=0), *own.std(axis=0), bright.mean(), bright.std()]
    return [*agent.size_lwh_m, *local, np.cos(yaw), np.linalg.norm(agent.velocity(1.0)), *shape]


@pytest.fixture(scope='module')
def lidar_views():
    """kind name -> list of feature rows, over 32 scenes of eight worlds."""
    grid, rows = make_ray_grid(400), {}
    for seed in range(8):
        for scene in build_world('nano', seed).scenes:
            sweep = take_sweep(SceneSnapshots(scene), grid, 1.0, np.random.default_rng(seed)).astype(np.float64)
            sweep[:, :3] = apply(scene.ego_pose(1.0) @ ego_from_lidar(), sweep[:, :3])
            for agent in scene.agents:
                features = _lidar_features(agent, scene, sweep)
                if features is not None:
                    rows.setdefault(agent.kind_name, []).append(features)
    return rows


def _neighbour_accuracy(first, second):
    """Balanced leave-one-out accuracy of a 15-nearest-neighbour vote, and how many rows it had."""
    table, truth = np.array([*first, *second]), np.arange(len(first) + len(second)) < len(first)
    table = (table - table.mean(axis=0)) / (table.std(axis=0) + 1e-9)
    distance = ((table[:, None] - table[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    votes = truth[np.argsort(distance, axis=1)[:, :15]].mean(axis=1) > len(first) / len(truth)
    return 0.5 * (votes[truth].mean() + (~votes[~truth]).mean()), len(truth)


@pytest.mark.parametrize('pair', LOOKALIKE_PAIRS)
def test_lookalikes_cannot_be_told_apart_without_a_camera(pair, lidar_views):
    """Chance is 0.5; two standard errors of the sample are allowed on top of the promised 0.05."""
    first, second = (np.array(lidar_views[name]) for name in pair)
    accuracy, count = _neighbour_accuracy(first, second)
    assert count > 200
    assert abs(accuracy - 0.5) < 0.05 + 1.0 / np.sqrt(count)
    spread = np.concatenate([first, second]).std(axis=0)
    error = 4 * spread * np.sqrt(1 / len(first) + 1 / len(second))
    assert (np.abs(first.mean(axis=0) - second.mean(axis=0)) < error).all()


@pytest.mark.parametrize('others', [('bus', 'trailer'), ('car', 'truck'), ('pedestrian', 'bicycle')])
def test_the_other_classes_can_be_told_apart_by_lidar(others, lidar_views):
    assert _neighbour_accuracy(*(lidar_views[name] for name in others))[0] > 0.9


def test_pairs_share_every_lidar_property():
    for first, second in LOOKALIKE_PAIRS:
        a, b = KINDS[first], KINDS[second]
        assert (a.size_lwh_m, a.size_std_lwh_m, a.reflectance, a.body) == (
            b.size_lwh_m, b.size_std_lwh_m, b.reflectance, b.body
        )
        assert a.colours_bgr != b.colours_bgr


def test_no_point_of_an_agent_lies_outside_its_box(nano_world):
    """Rays that meet an agent's body, noise-free, end inside its annotated box."""
    scene, grid = nano_world.scene('scene-0916'), make_ray_grid(200)
    primitives = SceneSnapshots(scene).at(1.0)
    global_from_lidar = scene.ego_pose(1.0) @ ego_from_lidar()
    hits = cast_rays(grid, global_from_lidar, primitives, scene.ground)
    points = apply(global_from_lidar, grid.directions * np.minimum(hits.range_m, 1e3)[:, None])
    owner = np.where(hits.surface >= 0, primitives.owner[np.maximum(hits.surface, 0)], -1)
    for index, agent in enumerate(scene.agents):
        rays = owner == index
        assert points_in_agent(agent, 1.0, points[rays]) == rays.sum()
    assert (owner >= 0).sum() > 300


def test_annotated_classes_near_the_ego_in_the_validation_scenes(nano_nusc, lidar_records):
    """Even the nano world has six classes with ten or more boxes within 25 m in its two validation scenes."""
    counts: dict[str, int] = {}
    for name, sample, record in lidar_records:
        ego = np.array(nano_nusc.get('ego_pose', record['ego_pose_token'])['translation'])
        for row in (nano_nusc.get('sample_annotation', token) for token in sample['anns']):
            near = np.hypot(*(np.array(row['translation']) - ego)[:2]) < 25.0
            if name in ('scene-0103', 'scene-0916') and near and row['num_lidar_pts']:
                counts[row['category_name']] = counts.get(row['category_name'], 0) + 1
    assert sum(count >= 10 for count in counts.values()) >= 6
