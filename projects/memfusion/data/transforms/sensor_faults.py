"""Data transforms. In: points, images and calibration of a frame. Out: the same with sensors missing; frames as they were.

Also `FaultDraws`: where the random numbers of all faults come from.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from ..errors import DataError
from .image_labels import calibration_of
from .multiview_augmentation import check_probability
from .multiview_loading import mask_cameras, sample_name

PER = ('frame', 'clip', 'scene')


@dataclass(frozen=True)
class FaultDraws:
    """Random numbers of one kind of fault, for a frame, a clip or a scene.

    Attributes:
        what: the transform's name; faults of different kinds are independent.
        per: 'frame' draws anew for every frame, 'clip' once for all frames of an item, 'scene' once for a scene, the same
            in every epoch (a rig that is wrong stays wrong).
        seed: with 'frame', None takes numpy's global state, which the data set seeds by (seed, epoch, index), and a number
            makes the draw depend on it and the frame only, for tests that can be repeated. With 'scene', None is 0.
            'clip' takes the item's `clip_seed` and no seed.

    Raises:
        ValueError: for another `per`, or a seed with 'clip'.
    """

    what: str
    per: str = 'frame'
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise ValueError(f"{self.what}: per must be {' or '.join(map(repr, PER))}, got {self.per!r}")
        if self.per == 'clip' and self.seed is not None:
            raise ValueError(f"{self.what}: per='clip' draws from the item's own seed, leave out seed={self.seed}")

    def generator(self, results: Mapping[str, Any]) -> np.random.Generator:
        """The generator of this frame; KeyError where the results lack what `per` needs (a sequence data set has it)."""
        if self.per == 'frame' and self.seed is None:
            return np.random.default_rng(np.random.randint(2**31))
        if self.per == 'clip':
            key = [int(results['clip_seed'])]
        elif self.per == 'scene':
            key = [self.seed or 0, _number(results['scene_token'])]
        else:  # frames between keyframes have the token of the one they lead to, so the stamp is needed, too
            stamp_us = round(1e6 * float(results['lidar_points'].get('timestamp', results['timestamp'])))
            key = [self.seed or 0, _number(sample_name(results)), stamp_us]
        return np.random.default_rng([_number(self.what), *key])


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


@TRANSFORMS.register_module()
class DropCameras(BaseTransform):
    """Masks some cameras of a frame, as if they were broken.

    Args:
        prob: how often.
        num: how many, drawn evenly from this range, both ends included; None as upper end is all of `cameras`.
        cameras: names of those that may be dropped; None is all.
        per, seed: see FaultDraws.

    Raises:
        ValueError: for a bad argument; from `transform`, for a camera that the rig does not have, or more than there are.
    """

    def __init__(
        self,
        prob: float,
        num: tuple[int, int | None] = (1, None),
        cameras: Sequence[str] | None = None,
        per: str = 'frame',
        seed: int | None = None,
    ) -> None:
        check_probability(prob)
        if len(num) != 2 or num[0] < 1 or (num[1] is not None and num[1] < num[0]):
            raise ValueError(f'num must be (fewest, most) from 1, or (fewest, None), got {num}')
        self.prob, self.num, self.cameras = prob, num, None if cameras is None else tuple(cameras)
        self.draws = FaultDraws(type(self).__name__, per, seed)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Masks cameras of `calibration`."""
        calibration = calibration_of(results, type(self).__name__)
        names = calibration.cam_names
        unknown = sorted(set(self.cameras or ()) - set(names))
        candidates = [name for name in names if self.cameras is None or name in self.cameras]
        most = len(candidates) if self.num[1] is None else self.num[1]
        if unknown or not self.num[0] <= most <= len(candidates):
            raise ValueError(f'DropCameras: cannot drop {self.num} of {self.cameras or names} from the cameras {names}'
                             + (f': there is no {", ".join(unknown)}' if unknown else ''))
        rng = self.draws.generator(results)
        if rng.random() < self.prob:
            count = int(rng.integers(self.num[0], most + 1))
            dropped = rng.choice(candidates, size=count, replace=False).tolist()
            results['calibration'] = mask_cameras(calibration, dropped)
        return results


@TRANSFORMS.register_module()
class DropLidar(BaseTransform):
    """Takes all points of a frame away (none are set to 0), as if the LiDAR were broken. Stands after the point loaders.

    Args:
        prob: how often.
        per, seed: see FaultDraws.
    """

    def __init__(self, prob: float, per: str = 'frame', seed: int | None = None) -> None:
        check_probability(prob)
        self.prob, self.draws = prob, FaultDraws(type(self).__name__, per, seed)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Empties `points`; DataError where none were loaded before."""
        if 'points' not in results:
            raise DataError('DropLidar needs the points: put it after LoadLidarPoints and LoadLidarSweeps in the pipeline, and '
                            'before PackClipFrame')
        if self.draws.generator(results).random() < self.prob:
            points = results['points']
            points.tensor = points.tensor[:0]
        return results
