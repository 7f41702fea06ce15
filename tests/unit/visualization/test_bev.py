"""Unit: what is drawn from above lies at the pixels where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from projects.memfusion.visualization import BoxSet, draw_bev, draw_gate
from projects.memfusion.visualization.bev import BEVCanvas
from projects.memfusion.visualization.style import BACKGROUND, HIDDEN, PREDICTION, TRUTH

RANGE_M = (-10.0, -10.0, 10.0, 10.0)  # 10 pixels per metre at 200 px
NO_POINTS = np.zeros((0, 3))


def at(image: np.ndarray, x_m: float, y_m: float) -> np.ndarray:
    """The 2x2 pixels around a place: (4, 3)."""
    column, row = BEVCanvas.of_range(RANGE_M, 200).to_px(np.array([x_m, y_m]))
    row, column = int(np.floor(row)), int(np.floor(column))
    return image[row:row + 2, column:column + 2].reshape(-1, 3)


def has(image: np.ndarray, x_m: float, y_m: float, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(at(image, x_m, y_m).astype(int) - color).sum(axis=1) < 60).any())


def test_pixels_by_hand() -> None:
    canvas = BEVCanvas.of_range([-10, -20, -5, 30, 20, 3], 400)
    assert canvas.shape == (400, 400) and canvas.px_per_m == 10
    # the outer corner of the top left pixel is (x_min, y_max)
    np.testing.assert_allclose(canvas.to_px(np.array([[-10.0, 20.0], [0.0, 0.0], [30.0, -20.0]])),
                               [[-0.5, -0.5], [99.5, 199.5], [399.5, 399.5]])
    with pytest.raises(ValueError, match='range_m'):
        BEVCanvas.of_range([5, 0, 0, 5])


@pytest.mark.parametrize('yaw, ahead, aside', [(0.0, (1, 0), (0, 1)), (np.pi / 2, (0, 1), (-1, 0))])
def test_box_outline_and_heading(yaw: float, ahead: tuple[int, int], aside: tuple[int, int]) -> None:
    # 4 m long, 2 m wide around (3, 4)
    image = draw_bev(NO_POINTS, RANGE_M, truth=BoxSet([[3.0, 4.0, 0, 4, 2, 1, yaw]]), size_px=200)

    def green(along: float, across: float) -> bool:
        return has(image, 3 + along * ahead[0] + across * aside[0], 4 + along * ahead[1] + across * aside[1], TRUTH)

    assert green(2, 0.5) and green(-2, 0.5) and green(0.5, 1) and green(0.5, -1)  # the four sides
    assert green(1, 0) and green(2.5, 0)  # heading line, past the front
    assert not green(-1, 0) and not green(-2.5, 0)  # none to the back
    assert not green(1, 0.5) and not green(3.2, 0)


def test_truth_and_predictions_differ_and_predictions_are_on_top() -> None:
    box = [[3.05, -6.05, 0, 4, 2, 1, 0.0]]  # its sides lie on pixel centres
    image = draw_bev(NO_POINTS, RANGE_M, BoxSet(box), BoxSet(box, [0], [0.9]), ['car'], size_px=200)
    column, row = BEVCanvas.of_range(RANGE_M, 200).to_px(np.array([5.05, -6.55])).round().astype(int)
    assert np.abs(image[row, column].astype(int) - PREDICTION).sum() < 30
    assert (np.abs(image.astype(int) - TRUTH).sum(axis=2) < 60).any()  # the thicker truth shows at its rim


def test_points_are_where_they_are_and_higher_ones_win() -> None:
    image = draw_bev(np.array([[5.0, -5.0, 0.0], [-100.0, 0, 0], [np.nan, 0, 0]]), RANGE_M, size_px=200)
    assert (at(image, 5.0, -5.0) != BACKGROUND).any()
    assert (at(image, 6.0, -5.0) == BACKGROUND).all()
    low, high = (draw_bev(np.array([[5.0, -5.0, z]]), RANGE_M, size_px=200) for z in (-2.0, 2.5))
    both = draw_bev(np.array([[5.0, -5.0, 2.5], [5.0, -5.0, -2.0]]), RANGE_M, size_px=200)
    assert (low != high).any() and (both == high).all()


def test_empty_picture_and_boxes_outside() -> None:
    empty = draw_bev(None, RANGE_M, size_px=200)
    outside = draw_bev(None, RANGE_M, BoxSet([[300.0, 0, 0, 4, 2, 1, 0.0]]), size_px=200)
    assert empty.shape == (200, 200, 3) and empty.dtype == np.uint8
    assert (outside[120:] == empty[120:]).all()  # only the legend, at the top, has changed


def test_gate_row_zero_is_at_y_min() -> None:
    gate = np.zeros((4, 5))
    gate[0, 4] = 1.0  # y in [-10, -5), x in [6, 10)
    image = draw_gate(gate[None], RANGE_M, size_px=200)
    assert image.shape == (200, 290, 3)
    brightness = image[:, :200].astype(int).sum(axis=2)
    assert brightness[175, 180] > 600  # x = 8, y = -7.5: bottom right
    assert brightness[25, 180] < 60 and brightness[175, 20] < 60 and brightness[25, 20] < 60
    in_bev = draw_bev(None, RANGE_M, gate=gate, size_px=200).astype(int).sum(axis=2)
    assert in_bev[175, 180] > in_bev[25, 20] + 150


def test_predictions_that_are_hidden_now_have_a_colour_of_their_own() -> None:
    boxes = BoxSet([[3.0, -4.0, 0, 4, 2, 1, 0.0], [-5.0, -7.0, 0, 4, 2, 1, 0.0]], [0, 0], [0.9, 0.9], [0.8, 0.2])
    image = draw_bev(NO_POINTS, RANGE_M, predictions=boxes, class_names=['car'], size_px=200)
    seen, hidden = (at(image, *place).astype(int).sum(axis=0) for place in ((3.0, -3.0), (-5.0, -6.0)))
    assert seen[0] - seen[2] > 60 and PREDICTION[0] > PREDICTION[2]  # red over blue, lines are thin
    assert hidden[2] - hidden[1] > 60 and HIDDEN[2] > HIDDEN[0]
