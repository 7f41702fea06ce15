"""Packed voxel sets against Python's sets and answers by hand."""

import numpy as np
import pytest

from projects.geometry.frame_sampling import VoxelSets


def test_counts_unions_and_overlaps_are_those_of_python_sets(keys_to_sets):
    rng = np.random.default_rng(0)
    numbers = [set(rng.integers(0, 200, rng.integers(0, 90)).tolist()) for _ in range(9)]
    sets = keys_to_sets(numbers)
    assert sets.counts.tolist() == [len(own) for own in numbers]
    assert sets.union_count() == len(set().union(*numbers)) and sets.union_count([1, 4]) == len(numbers[1] | numbers[4])
    expected = [len(numbers[3] & other) / max(len(numbers[3] | other), 1) for other in numbers]
    assert sets.overlap(3, np.arange(9)) == pytest.approx(expected)
    for row, own in enumerate(numbers):
        assert set(sets.keys[sets.members(row), 0].tolist()) == own


def test_repeated_and_negative_keys():
    keys = [np.array([[-3, 0, 5], [-3, 0, 5], [2, -1, 5]]), np.zeros((0, 3), int)]
    sets = VoxelSets.of_keys(keys, np.array([1.0, 0, 0]), 0.5)
    assert sets.counts.tolist() == [2, 0]
    assert sorted(sets.centers_m.tolist()) == [[-0.25, 0.25, 2.75], [2.25, -0.25, 2.75]]


def test_nothing_seen_is_a_set_too(keys_to_sets):
    sets = keys_to_sets([set(), set()])
    assert sets.counts.tolist() == [0, 0] and sets.union_count() == 0 and sets.overlap(0, np.array([1])).tolist() == [0.0]


def test_voxels_that_are_too_many_to_number_are_refused():
    with pytest.raises(ValueError, match='voxels are too small for points that reach over'):
        VoxelSets.of_keys([np.array([[0, 0, 0], [2 ** 40, 2 ** 40, 2 ** 40]])], np.zeros(3), 1e-9)
