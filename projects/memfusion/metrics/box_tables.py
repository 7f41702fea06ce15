"""Metric. In: rows of boxes. Out: tables of truth and of predictions of all frames, centres in the global frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .hidden_strata import HiddenFacts

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TruthTable:
    """Truth boxes of all frames; n rows, sorted by frame.

    Attributes:
        frame: (n,) position of the frame in the infos.
        frame_index: (n,) position of the keyframe in its scene.
        track: (n,) one number per instance.
        label: (n,) index in the classes.
        centre_m: (n, 3) box centre, global frame.
        num_lidar_pts, num_radar_pts: (n,) points in the box in this keyframe.
        seen: (n,) whether the instance held a LiDAR point in an earlier keyframe, not long ago (`build_tables.seen_before`).
        hidden: when they were seen last, how they and the ego move; None where nobody asks.
    """

    frame: Ints
    frame_index: Ints
    track: Ints
    label: Ints
    centre_m: Floats
    num_lidar_pts: Ints
    num_radar_pts: Ints
    seen: Bools
    hidden: HiddenFacts | None = None

    @property
    def has_points(self) -> Bools:
        """(n,) the truth of the official score: boxes with a LiDAR or a radar point."""
        return self.num_lidar_pts + self.num_radar_pts > 0

    @property
    def has_lidar_or_seen(self) -> Bools:
        """(n,) the truth of recall and flicker."""
        return (self.num_lidar_pts > 0) | self.seen

    @property
    def has_points_or_seen(self) -> Bools:
        """(n,) the truth of mAP_seen: that of the official score, and what is hidden now and was seen."""
        return self.has_points | self.seen


@dataclass(frozen=True)
class PredictionTable:
    """Predictions of all frames; m rows, sorted by frame, within a frame in the order they were given.

    Attributes:
        frame: (m,) position of the frame in the infos.
        label: (m,) index in the classes.
        centre_m: (m, 3) box centre, global frame.
        score: (m,) finite.
        seen: (m,) in 0..1, how sure it is that the box is seen now; None where the detector does not say.
    """

    frame: Ints
    label: Ints
    centre_m: Floats
    score: Floats
    seen: Floats | None = None
