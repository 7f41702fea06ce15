"""Maps of the forecast world in the devkit's hands: NuScenesMap, its lanes, the off-road metric, the rasterizer."""

import json

import numpy as np
import pytest
from nuscenes.eval.prediction.data_classes import Prediction
from nuscenes.eval.prediction.metrics import OffRoadRate, RowMean
from nuscenes.map_expansion import map_api
from nuscenes.map_expansion.map_api import NuScenesMap
from nuscenes.nuscenes import NuScenes
from nuscenes.prediction import PredictHelper
from nuscenes.prediction.input_representation.agents import AgentBoxesWithFadedHistory
from nuscenes.prediction.input_representation.static_layers import StaticLayerRasterizer

from projects.synthetic_nuscenes.map_expansion import CANVAS_EDGES_M, arcline_path

PLACE, SIDE_M = 'singapore-hollandvillage', 600.0  # where the training scene lies


@pytest.fixture(scope='module')
def helper(forecast_root):
    return PredictHelper(NuScenes('v1.0-trainval', str(forecast_root), verbose=False))


@pytest.fixture(scope='module')
def the_map(forecast_root):
    return NuScenesMap(str(forecast_root), PLACE)


@pytest.fixture(scope='module')
def futures(helper, forecast_root):
    """Tokens and true futures of the agents on this map."""
    tokens = json.loads((forecast_root / 'maps/prediction/prediction_scenes.json').read_text())['scene-0348']
    assert {helper.get_map_name_from_sample_token(token.split('_')[1]) for token in tokens} == {PLACE}
    return {token: helper.get_future_for_agent(*token.split('_'), 6.0, in_agent_frame=False) for token in tokens}


def test_all_four_locations_have_a_map_of_the_devkits_size(forecast_root):
    assert sorted(CANVAS_EDGES_M) == sorted(map_api.locations)
    lanes = {}
    for place, edge in CANVAS_EDGES_M.items():
        the_map = NuScenesMap(str(forecast_root), place)
        assert the_map.version == '1.3' and tuple(the_map.canvas_edge) == edge
        nodes = np.array([[node['x'], node['y']] for node in the_map.node]).reshape(-1, 2)
        assert (nodes >= 0).all() and (nodes <= edge).all()
        lanes[place] = len(the_map.lane)
    assert sorted(count > 0 for count in lanes.values()) == [False, False, True, True]  # this world has two scenes


def test_off_road_rate_of_the_devkit_is_0_for_what_was_driven_and_1_beside_the_road(the_map, helper, futures):
    """The devkit's mask is 0.8 GB for the whole map; this one is the corner where the scene lies, by the same call."""
    mask = the_map.get_map_mask((SIDE_M / 2, SIDE_M / 2, SIDE_M, SIDE_M), 0, ['drivable_area'],
                                (int(10 * SIDE_M), int(10 * SIDE_M)))[0]
    metric = OffRoadRate.__new__(OffRoadRate)
    metric.helper, metric.drivable_area_polygons, metric._aggregators = helper, {PLACE: mask}, [RowMean()]
    metric.pixels_per_meter, metric.number_of_points = 10, 200
    rates = []
    for token, future in futures.items():
        paths = [future, future + [0.0, 25.0], future[:, ::-1]]  # the second may lie on a side street
        rates.append([float(metric(future, Prediction(*token.split('_'), path[None], np.ones(1)))[0]) for path in paths])
    driven, aside, elsewhere = np.array(rates).T
    assert len(rates) > 20 and (driven == 0).all() and aside.mean() > 0.6 and (elsewhere == 1).all()


def test_lanes_lead_where_vehicles_drive_and_end_where_the_next_begin(the_map, futures, helper):
    lanes = [record['token'] for record in the_map.lane + the_map.lane_connector]
    lines = {key: np.array(line) for key, line in the_map.discretize_lanes(lanes, 0.5).items()}
    for key, line in lines.items():
        for following in the_map.get_outgoing_lane_ids(key):
            assert np.hypot(*(line[-1, :2] - lines[following][0, :2])) < 0.3
            assert abs((line[-1, 2] - lines[following][0, 2] + np.pi) % (2 * np.pi) - np.pi) < 0.1
            assert key in the_map.get_incoming_lane_ids(following)
    points = np.concatenate([line[:, :2] for line in lines.values()])
    driven = np.concatenate(list(futures.values()))
    assert np.median(np.linalg.norm(driven[:, None] - points, axis=-1).min(axis=1)) < 0.3
    x, y = driven[len(driven) // 2]
    on = the_map.layers_on_point(x, y)
    assert on['drivable_area'] and on['road_segment'] and the_map.get_closest_lane(x, y, radius=4)


def test_arcs_by_hand():
    """A straight line, then a quarter circle of radius 10 to the left and one of radius 5 to the right."""
    angles = np.linspace(0, np.pi / 2, 9)
    left = np.stack([30 + 10 * np.sin(angles), 10 - 10 * np.cos(angles), angles], axis=1)
    right = np.stack([45 - 5 * np.cos(angles), 10 + 5 * np.sin(angles), np.pi / 2 - angles], axis=1)
    path = np.concatenate([[[0, 0, 0], [10, 0, 0]], left, right[1:]])
    pieces = arcline_path(path)
    assert [piece['shape'] for piece in pieces] == ['LSL'] * 9 + ['RSR'] * 8
    assert sum(sum(piece['segment_length']) for piece in pieces) == pytest.approx(30 + 5 * np.pi + 2.5 * np.pi)
    np.testing.assert_allclose([piece['radius'] for piece in pieces[1:]], [10.0] * 8 + [5.0] * 8)
    line = np.array(map_api.discretize_lane(pieces, 0.1))
    assert np.hypot(*np.diff(line[:, :2], axis=0).T).max() < 0.12
    np.testing.assert_allclose(line[-1], path[-1], atol=1e-6)


def test_the_devkits_rasterizers_draw_the_street_and_the_agent(helper, futures):
    instance, sample = next(iter(futures)).split('_')
    picture = StaticLayerRasterizer(helper, resolution=0.5).make_representation(instance, sample)
    assert picture.shape == (100, 100, 3)
    assert 0.2 < (picture.max(axis=-1) > 0).mean() < 0.9 and (picture[75:85, 45:55].max(axis=-1) > 0).all()
    agents = AgentBoxesWithFadedHistory(helper, seconds_of_history=1, resolution=0.5).make_representation(instance, sample)
    assert agents.shape == (100, 100, 3) and tuple(agents[80, 50]) == (255, 0, 0)  # the agent itself, in red
