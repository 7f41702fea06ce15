"""The forecast world: its split file in the devkit's hands, and traffic that has reasons which can be seen."""

import json

import numpy as np
import pytest
from nuscenes.eval.prediction.splits import get_prediction_challenge_split
from nuscenes.utils.splits import create_splits_scenes

from projects.synthetic_nuscenes.cli import main
from projects.synthetic_nuscenes.maneuvers import CROSSING, FREE, LEADER, MANEUVERS, ManeuverLog
from projects.synthetic_nuscenes.motion import LineMotion, constant_speed
from projects.synthetic_nuscenes.overlap import rectangles_overlap
from projects.synthetic_nuscenes.road import build_road
from projects.synthetic_nuscenes.scene import EGO_CENTER_AHEAD_M, EGO_SIZE_LW_M
from projects.synthetic_nuscenes.settings import FORECAST_KINDS, PRESETS, make_settings
from projects.synthetic_nuscenes.streets import lane_path, speed_limit, turn_path
from projects.synthetic_nuscenes.traffic import Crossing, Vehicle, simulate
from projects.synthetic_nuscenes.world import build_scene

TIMES = np.arange(0.0, 20.0, 0.1)


@pytest.fixture(scope='module')
def scenes():
    settings = make_settings('forecast', keyframes=30)
    return [build_scene(settings, name) for name in ('scene-0348', 'scene-0003')]


def straight(length_m=400.0):
    return build_road([(length_m, 0.0, 0.0)], -100.0)


def run(vehicles, crossings=()):
    traffic = simulate(vehicles, crossings, TIMES)
    return traffic, [vehicle.start_m + traffic.profile(i).distance(TIMES) for i, vehicle in enumerate(vehicles)]


def test_split_file_is_read_by_the_devkit_and_names_its_scenes(forecast_root):
    splits = {split: get_prediction_challenge_split(split, str(forecast_root)) for split in ('train', 'train_val', 'val')}
    maneuvers = json.loads((forecast_root / 'maps/prediction/maneuvers.json').read_text())
    assert not splits['train_val'] and set(splits['train']) | set(splits['val']) == set(maneuvers)
    assert len(set(splits['train'])) == len(splits['train']) > 20 and len(splits['val']) > 20
    assert set(maneuvers.values()) == set(MANEUVERS)


def test_scenes_of_the_preset_are_in_all_three_splits():
    official = create_splits_scenes()
    names = PRESETS['forecast'].scene_names
    counts = [sum(name in part for name in names)
              for part in (official['train'][200:], official['train'][:200], official['val'])]
    assert counts == [16, 3, 6] and names == tuple(FORECAST_KINDS)
    assert 'forecast' not in make_settings('tiny').to_json() and 'lidar_sweeps' not in make_settings('tiny').to_json()
    with pytest.raises(ValueError, match='scene-0103'):
        make_settings('forecast', scene_names=('scene-0103',))


def test_command_line_leaves_a_preset_its_rig(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr('projects.synthetic_nuscenes.cli.generate_dataset', lambda out, settings, **kw: seen.append(settings))
    assert main(['--preset', 'forecast', '--out', str(tmp_path)]) == 0
    assert main(['--preset', 'forecast', '--rig', 'nuscenes', '--out', str(tmp_path)]) == 0
    assert seen == [make_settings('forecast'), make_settings('forecast', rig='nuscenes')]


def test_follower_brakes_for_a_slow_leader_and_keeps_a_gap():
    path = lane_path(straight(), 1)
    traffic, places = run([Vehicle(path, 1, 60.0, 4.0, 7.0, 'truck'), Vehicle(path, 1, 0.0, 9.0, 4.6, 'car')])
    assert traffic.speeds_mps[1, 0] == pytest.approx(9.0) and traffic.speeds_mps[1, -1] == pytest.approx(4.0, abs=0.15)
    gap = places[0] - places[1] - (7.0 + 4.6) / 2
    assert gap.min() > 2.0 and (traffic.reasons[1, 100:] == LEADER).all() and (traffic.reasons[0] == FREE).all()


def test_vehicle_waits_at_the_line_while_somebody_crosses_and_goes_on():
    path = lane_path(straight(), 1)
    traffic, places = run([Vehicle(path, 1, 0.0, 8.0, 4.6, 'car')], [Crossing(1, 60.0, 75.0, 7.0, 13.0)])
    waiting = (TIMES > 11.0) & (TIMES < 13.0)
    assert traffic.speeds_mps[0, waiting].max() < 0.5 and (traffic.reasons[0, waiting] == CROSSING).all()
    assert 56.0 < places[0][waiting].max() + 2.3 <= 60.0 and traffic.speeds_mps[0, -1] > 6.0
    elsewhere, later = Crossing(-1, 60.0, 75.0, 7.0, 13.0), Crossing(1, 60.0, 75.0, 15.0, 17.0)
    free, _ = run([Vehicle(path, 1, 0.0, 8.0, 4.6, 'car')], [elsewhere, later])
    turned, _ = run([Vehicle(path, 1, 0.0, 8.0, 4.6, 'car', 0, 40.0)], [Crossing(1, 60.0, 75.0, 7.0, 13.0)])
    np.testing.assert_array_equal(turned.speeds_mps, free.speeds_mps)  # has left the road before
    np.testing.assert_allclose(free.speeds_mps, 8.0, atol=0.5)  # another lane's, and one that it passes long before


def test_turn_path_leaves_by_the_turn_lane_to_the_right_and_is_taken_slowly():
    for direction in (1, -1):
        road = straight()
        path = turn_path(road, direction, 150.0)
        heading = path.heading_rad[-1] - (0.0 if direction > 0 else np.pi)
        assert abs((heading + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi) < 0.02  # a quarter turn to the right
        x, _, _ = road.at(150.0 - direction * 1.8, 0.0)
        assert abs(path.x_m[-1] - float(x)) < 0.3
        steps = np.hypot(np.diff(path.x_m), np.diff(path.y_m)) / np.diff(path.s_m)
        assert steps.min() > 0.9 and steps.max() < 1.1
        p, limit = speed_limit(path)
        assert limit.min() == pytest.approx(np.sqrt(2.0 * 6.0), rel=0.1) and limit[0] > 15.0
        assert (np.diff(limit**2) > -2 * 1.5 - 1e-6).all()


def test_maneuvers_by_hand():
    ahead = LineMotion(0.0, 0.0, 0.0, constant_speed(5.0))
    speeds = np.clip(8.0 - 2.0 * (TIMES - 8.0), 0.0, 8.0)  # brakes from 8 s to 12 s
    for reason, word in ((CROSSING, 'yield'), (LEADER, 'brake'), (FREE, 'turn')):
        log = ManeuverLog(TIMES, speeds, np.full(len(TIMES), reason), ahead)
        assert [log.at(t) for t in (0.0, 4.0, 9.0, 13.5)] == ['keep', word, word, 'keep']
    log = ManeuverLog(TIMES, speeds[::-1], np.where(TIMES < 7.0, CROSSING, FREE), ahead)  # waits until 8 s, then goes on
    assert [log.at(t) for t in (1.0, 5.0, 8.5, 13.5)] == ['keep', 'yield', 'yield', 'keep']


def test_nobody_overlaps_and_reasons_are_there(scenes):
    for scene in scenes:
        times = np.arange(0.0, scene.duration_s, 0.25)
        tracks = np.stack([agent.track(times) for agent in scene.agents])
        halves = np.array([agent.size_lwh_m[:2] for agent in scene.agents]) / 2
        for index in range(1, len(tracks)):
            assert not rectangles_overlap(tracks[:index], halves[:index, None], tracks[index][None], halves[index]).any()
        ego = np.stack(scene.ego_motion.pose(times), axis=-1)
        ego[:, :2] += EGO_CENTER_AHEAD_M * np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], -1)
        assert not rectangles_overlap(tracks, halves[:, None], ego[None], np.array(EGO_SIZE_LW_M) / 2).any()


def test_who_is_braked_for_and_yielded_to_is_there(scenes):
    """Hard braking for a leader: somebody, maybe the ego, is ahead. For who crosses: they are near or come within 5 s."""
    checked = {LEADER: 0, CROSSING: 0}
    for scene in scenes:  # one looks 4.5 s ahead, at 11 m/s at most
        across = [agent for agent in scene.agents if agent.name not in scene.maneuvers and not agent.is_static()]
        for agent in (agent for agent in scene.agents if agent.name in scene.maneuvers):
            log = scene.maneuvers[agent.name]
            for index in np.flatnonzero((np.gradient(log.speeds_mps, log.times_s) < -1.0) & (log.times_s > 0.0))[::3]:
                t_s, reason = float(log.times_s[index]), int(log.reasons[index])
                center, yaw = agent.pose(t_s)
                if reason == LEADER:
                    others = [other.pose(t_s)[0] for other in scene.agents if other.name in scene.maneuvers]
                    offset = np.array([*others, scene.ego_pose(t_s)[:3, 3]])[:, :2] - center[:2]
                    along = offset @ [np.cos(yaw), np.sin(yaw)]
                    assert ((along > 2.0) & (along < 60.0) & (along > 0.6 * np.hypot(*offset.T))).any(), (agent.name, t_s)
                elif reason == CROSSING:
                    places = np.array([other.pose(t_s + later)[0] for other in across for later in (0.0, 2.5, 5.0)])
                    assert np.hypot(*(places - center)[:, :2].T).min() < 45.0, (agent.name, t_s)
                if reason in checked:
                    checked[reason] += 1
    assert min(checked.values()) > 20


def test_maneuvers_are_what_constant_velocity_does_not_foretell(scenes):
    """Mean distance after 6 s from where the present velocity leads: half as much for 'keep'."""
    errors: dict[str, list[float]] = {}
    for scene in scenes:
        for agent in scene.agents:
            for t_s in np.arange(1.0, scene.duration_s - 6.0, 0.5):
                if agent.name in scene.maneuvers and np.hypot(*(agent.pose(t_s)[0] - scene.ego_pose(t_s)[:3, 3])[:2]) < 60:
                    straight_on = agent.pose(t_s)[0] + 6.0 * (agent.pose(t_s)[0] - agent.pose(t_s - 0.5)[0]) / 0.5
                    errors.setdefault(scene.maneuvers[agent.name].at(t_s), []).append(
                        float(np.linalg.norm(agent.pose(t_s + 6.0)[0] - straight_on)))
    means = {word: np.mean(values) for word, values in errors.items()}
    assert all(len(errors[word]) >= 10 for word in MANEUVERS)
    assert all(means['keep'] < 0.6 * means[word] for word in ('yield', 'brake', 'turn')), means


def test_same_seed_same_world_and_others_differ():
    settings = make_settings('forecast', keyframes=2)
    first, again = build_scene(settings, 'scene-0348'), build_scene(settings, 'scene-0348')
    assert [a.pose(1.0)[1] for a in first.agents] == [a.pose(1.0)[1] for a in again.agents]
    other = build_scene(make_settings('forecast', 1, keyframes=2), 'scene-0348')
    assert [a.size_lwh_m for a in first.agents] != [a.size_lwh_m for a in other.agents]
