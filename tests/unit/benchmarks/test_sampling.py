"""The plain form that lazy greedy is measured against chooses the same frames, and the walk is one."""

import numpy as np

from projects.benchmarks.sampling import plain_cover, walk
from projects.geometry.frame_sampling import lazy_cover


def test_both_forms_choose_the_same_and_lazy_looks_at_less():
    sets = walk(300, seen=60, spread=200)
    plain, lazy = plain_cover(sets.words, 40), lazy_cover(sets.words, 40)
    assert plain.order.tolist() == lazy.order.tolist() and plain.gains.tolist() == lazy.gains.tolist()
    assert plain.evaluations == sum(300 - step for step in range(40)) and lazy.evaluations < plain.evaluations / 2
    near, far = sets.overlap(0, np.array([1, 250]))
    assert near > 0.05 and far == 0
