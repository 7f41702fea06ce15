"""Pictures of futures: where paths lie, which is likelier, and what stands at their ends, from above and in a camera."""

import numpy as np
import pytest
import torch
from forecast_agents import straight_agents

from projects.memfusion.structures import Calibration
from projects.memfusion.visualization import FutureSet, draw_futures, draw_futures_camera
from projects.memfusion.visualization import futures as pictures
from projects.memfusion.visualization.futures import agent_to_bev
from projects.memfusion.visualization.style import TRUTH

RANGE = (-40.0, -40.0, 40.0, 40.0)


def futures_of(shares, turn_rad=0.0):
    """One agent 5 m before the ego (x ahead of it), its heading turned, driving 1 m a step; its modes are 3 m apart."""
    path = np.stack([np.zeros(12), np.arange(1.0, 13.0)], axis=-1)
    modes = np.stack([path + [3.0 * (number + 1), 0.0] for number in range(len(shares))])[None]
    boxes = np.array([[5.0, 0.0, -1.0, 4.0, 2.0, 1.5, turn_rad]])
    return FutureSet(boxes, agent_to_bev(modes, boxes), np.array([shares]), agent_to_bev(path[None], boxes),
                     np.ones((1, 12), dtype=bool))


def test_paths_are_where_the_agents_are():
    """Heading along +y of the agent, x to its right: heading along the BEV's y they are the BEV's own axes."""
    upright, ahead = futures_of([1.0], np.pi / 2), futures_of([1.0])
    np.testing.assert_allclose(upright.truth[0, -1], [5.0, 12.0], atol=1e-9)
    np.testing.assert_allclose(upright.modes[0, 0, -1], [8.0, 12.0], atol=1e-9)
    np.testing.assert_allclose(ahead.truth[0, -1], [17.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(ahead.modes[0, 0, -1], [17.0, -3.0], atol=1e-9)


def test_what_a_model_says_goes_with_its_agent():
    agents = straight_agents([4.0, 8.0], seed=1)
    modes = agents.future_xy[0, :, None].expand(-1, 5, -1, -1)
    futures = FutureSet.of_agents(agents, modes, torch.full((2, 5), 0.2))
    np.testing.assert_allclose(futures.modes[:, 2], futures.truth, atol=1e-9)
    pose = agents.global_from_agent[0].numpy()
    there = np.einsum('aij,anj->ani', pose[:, :2, :2], agents.future_xy[0].numpy()) + pose[:, None, :2, 3] - (400.0, 1100.0)
    np.testing.assert_allclose(futures.truth, there, atol=1e-9)


def test_the_likeliest_is_the_brightest_and_the_truth_lies_on_top():
    lines = list(futures_of([0.1, 0.3, 0.2]).lines())
    assert [text for *_, text in lines] == ['10%', '20%', '30%', ''] and lines[-1][1] == TRUTH
    brightness = [sum(color) for _, color, _, _ in lines[:3]]
    assert brightness == sorted(brightness) and [thickness for _, _, thickness, _ in lines[:3]] == [1, 1, 2]
    assert lines[2][1] == next(futures_of([1.0]).lines())[1]  # as bright as one that is certain
    image = draw_futures(futures_of([0.1, 0.3, 0.2]), RANGE)
    green = np.argwhere((image == TRUTH).all(axis=-1))[100:]  # after the legend
    assert len(green) > 20 and np.ptp(green, axis=0).max() > 100


@pytest.mark.parametrize('agents', [0, 1])
def test_probabilities_stand_in_the_camera_too(agents, monkeypatch):
    texts = []
    monkeypatch.setattr(pictures, 'put_text', lambda tile, text, column, row, *more, **settings: texts.append(
        (text, 0 <= column < tile.shape[1] + 3, 0 <= row < tile.shape[0] + 3)))
    looks_along_x = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    camera = Calibration.from_info({'CAM_FRONT': dict(
        cam2img=[[100, 0, 100], [0, 100, 50], [0, 0, 1]], lidar2cam=looks_along_x, height=100, width=200)})
    blank = np.zeros((100, 200, 3), dtype=np.uint8)
    shown = futures_of([0.25, 0.75])
    if not agents:
        shown = FutureSet(*(part[:0] for part in (shown.boxes, shown.modes, shown.probabilities, shown.truth, shown.known)))
    image = draw_futures_camera(blank, camera, 'CAM_FRONT', shown, width_px=400)
    assert (image[60:] == TRUTH).all(axis=-1).any() == bool(agents)  # below the legend
    assert texts == [('25%', True, True), ('75%', True, True)][:2 * agents]
