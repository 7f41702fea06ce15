"""The study of memory policies: its drive by hand, who is held when, and what is counted."""

import numpy as np
import pytest

from projects.studies.mem_policy.drive import Drive, _seen_cells, cell_centres
from projects.studies.mem_policy.run import COLUMNS, held_frames, looked_up, shares


@pytest.fixture
def stop():
    """8 frames: a step of 10 m, then a stop at which a wall hides what lies to the right."""
    poses = np.tile(np.eye(4), (8, 1, 1))
    poses[1:, 0, 3] = 10.0
    visible = np.ones((8, 32, 32), bool)
    visible[2:, 20:24, 20:24] = False
    return Drive(poses, visible, np.array([False, False, *[True] * 6]))


def test_a_box_hides_what_lies_behind_it_and_nothing_else():
    seen = _seen_cells(np.eye(4), np.array([[10.0, 0, 1, 1]]))
    x, y = np.moveaxis(cell_centres()[..., :2], -1, 0)
    behind = (x > 12) & (np.abs(y) < 1.7)  # two rows of cells, 1.6 m beside the axis: 0.05 rad behind 32 m and more
    assert not seen[behind & (x > 32)].any() and seen[x < 8].all() and seen[np.abs(y) > 6].all() and 0 < (~seen).sum() < 40


def test_who_is_held_when_the_oldest_goes(stop):
    assert held_frames(stop, 1, None)[7] == [2, 3, 4, 5, 6] and held_frames(stop, 2, None)[7] == [0, 2, 4, 6]
    assert held_frames(stop, 1, dict(type='sa'))[7] == [0, 3, 4, 5, 6]  # 0 and the others saw all that 1 saw


def test_what_was_seen_is_looked_up_in_the_frames_that_saw_it(stop):
    there = looked_up(stop)
    assert there[1, 0].sum() == 32 * 29 and there[3, 1].all()  # 10 m are three cells: that much is new
    assert (there[5, 3] == stop.visible[3]).all() and not there[3, 3:].any()
    could, held = shares(stop, there, held_frames(stop, 1, None))
    assert dict(zip(COLUMNS, could))['all'] == 6 * 16 and dict(zip(COLUMNS, could))['driving'] == 0
    assert dict(zip(COLUMNS, held))['all'] == 5 * 16  # at frame 7 the last one that saw it has left
    assert dict(zip(COLUMNS, held))['standing'] == 5 * 16 and dict(zip(COLUMNS, could))['2 to 10 s ago'] == 2 * 16
    assert shares(stop, there, held_frames(stop, 1, dict(type='sa')))[1][0] == 6 * 16
