"""Data transform. In: points and boxes of one frame. Out: the same with objects pasted from the GT database, LiDAR frame."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from mmdet3d.datasets.transforms import ObjectSample
from mmdet3d.registry import TRANSFORMS

from .. import pickle_handler  # noqa: F401 (mmdet3d's DataBaseSampler reads the database by MMEngine's handler)

# mmdet3d 1.4's sample_all says np.long, which numpy 1.24 to 1.26 do not have (and mmdet3d does not run on numpy 2).
if not hasattr(np, 'long'):
    np.long = np.int64  # type: ignore[attr-defined]


class IndependentSampler:
    """Draws objects of one class without replacement; every call is a draw of its own.

    mmdet3d's sampler goes on through a shuffled list instead, so what it gives depends on all calls of the worker before,
    and a resumed run pastes other objects than the uninterrupted one.
    """

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self._objects = objects

    def sample(self, num: int) -> list[dict[str, Any]]:
        """At most `num` different objects, by python's generator."""
        return random.sample(self._objects, min(num, len(self._objects)))


@TRANSFORMS.register_module()
class SeededObjectSample(ObjectSample):
    """mmdet3d's ObjectSample (GT-paste) whose draws depend on the item's seed only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        samplers = self.db_sampler.sampler_dict
        self.db_sampler.sampler_dict = {name: IndependentSampler(s._sampled_list) for name, s in samplers.items()}
