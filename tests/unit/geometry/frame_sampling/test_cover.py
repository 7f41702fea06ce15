"""Lazy greedy: the choice of plain greedy over Python's sets, near enough to the best there is, and far fewer looks."""

from itertools import combinations
from math import e

import numpy as np
import pytest

from projects.geometry.frame_sampling import lazy_cover


def plain_greedy(sets, count, frames=None):
    """The textbook's: looks at every candidate in every step; sets are the bits of Python's integers. Order, gains, looks."""
    numbers = {key: bit for bit, key in enumerate(set().union(*sets))}
    sets = [sum(1 << numbers[key] for key in own) for own in sets]
    frames = frames or [(number,) for number in range(len(sets))]
    covered, taken, order, gains, looks = 0, set(), [], [], 0
    while len(order) < count:
        best, most = None, 0
        for number, own in enumerate(sets):
            if not taken.isdisjoint(frames[number]):
                continue
            looks += 1
            gain = (own & ~covered).bit_count()
            if gain > most:
                best, most = number, gain
        if best is None:
            break
        order, gains = [*order, best], [*gains, most]
        covered |= sets[best]
        taken |= set(frames[best])
    return order, gains, looks


@pytest.mark.parametrize('seed', range(8))
def test_lazy_is_plain_greedy_with_ties_and_early_stop(seed, keys_to_sets):
    rng = np.random.default_rng(seed)
    numbers = [set(rng.integers(0, 30 + 40 * seed, rng.integers(0, 12)).tolist()) for _ in range(60)]
    cover = lazy_cover(keys_to_sets(numbers).words, 40)
    order, gains, looks = plain_greedy(numbers, 40)
    assert cover.order.tolist() == order and cover.gains.tolist() == gains
    assert len(numbers) <= cover.evaluations <= looks


@pytest.mark.parametrize('seed', range(4))
def test_candidates_that_share_a_frame_exclude_each_other(seed, keys_to_sets):
    rng = np.random.default_rng(seed)
    numbers = [set(rng.integers(0, 60, 9).tolist()) for _ in range(30)]
    frames = [(number, int(rng.integers(30, 42))) for number in range(30)]
    cover = lazy_cover(keys_to_sets(numbers).words, 15, np.array(frames))
    order, gains, _ = plain_greedy(numbers, 15, frames)
    assert cover.order.tolist() == order and cover.gains.tolist() == gains
    assert len({frame for number in order for frame in frames[number]}) == 2 * len(order)


@pytest.mark.parametrize('seed', range(6))
def test_at_least_1_minus_1_over_e_of_the_best(seed, keys_to_sets):
    rng = np.random.default_rng(100 + seed)
    numbers = [set(rng.integers(0, 40, rng.integers(1, 14)).tolist()) for _ in range(12)]
    for count in (1, 2, 3, 4):
        best = max(len(set().union(*chosen)) for chosen in combinations(numbers, count))
        assert lazy_cover(keys_to_sets(numbers).words, count).gains.sum() >= (1 - 1 / e) * best


def test_a_quarter_of_the_looks_on_an_overlapping_walk(keys_to_sets):
    """2000 frames, each of which sees most of what the last one saw; 64 are chosen."""
    rng = np.random.default_rng(0)
    numbers = [set((2 * frame + rng.integers(0, 400, 120)).tolist()) for frame in range(2000)]
    cover = lazy_cover(keys_to_sets(numbers).words, 64)
    order, gains, looks = plain_greedy(numbers, 64)
    assert cover.order.tolist() == order and cover.gains.tolist() == gains
    assert looks == sum(2000 - step for step in range(64)) and cover.evaluations <= looks / 4


def test_nothing_to_see_and_nothing_to_choose_from(keys_to_sets):
    for words in (keys_to_sets([set(), set()]).words, np.zeros((0, 1), np.uint64)):
        cover = lazy_cover(words, 3)
        assert cover.order.tolist() == [] and cover.gains.tolist() == []
