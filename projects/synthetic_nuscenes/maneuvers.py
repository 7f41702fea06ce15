"""World stage: why a vehicle in traffic does what it does next; its simulated speeds and reasons in, a word out (no frame)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.motion import Trajectory
from projects.synthetic_nuscenes.transforms import FloatArray

HORIZON_S = 6.0
MANEUVERS = ('yield', 'brake', 'turn', 'keep')
FREE, LEADER, CROSSING = 0, 1, 2
"""What limits a vehicle's acceleration: nothing but its own wish and the lane, whoever is ahead of it, whoever crosses."""
_SPEED_CHANGE_MPS = 2.0
_TURN_RAD = np.radians(15.0)
_BEFORE_S = 2.0


@dataclass(frozen=True)
class ManeuverLog:
    """What a simulation says of one vehicle.

    Attributes:
        times_s: (K,) rising.
        speeds_mps: (K,).
        reasons: (K,) `FREE`, `LEADER` or `CROSSING`.
        trajectory: what it drives along.
    """

    times_s: FloatArray
    speeds_mps: FloatArray
    reasons: np.ndarray
    trajectory: Trajectory

    def at(self, t_s: float) -> str:
        """One of `MANEUVERS`: what happens within the 6 s after t that a constant velocity does not foretell.

        'yield' and 'brake': the speed changes by 2 m/s or more, and somebody who crosses, or the leader, is among the reasons
        from 2 s before t on (whoever waited goes on for the same reason); 'turn': it changes for none of them, but for the
        bends of the lane, or the heading changes by 15 degrees or more; 'keep' is the rest.
        """
        coming = (self.times_s >= t_s - 1e-6) & (self.times_s <= t_s + HORIZON_S + 1e-6)
        times, speeds = self.times_s[coming], self.speeds_mps[coming]
        if np.abs(speeds - speeds[0]).max() >= _SPEED_CHANGE_MPS:
            reasons = self.reasons[(self.times_s >= t_s - _BEFORE_S) & (self.times_s <= times[-1])]
            return 'yield' if (reasons == CROSSING).any() else 'brake' if (reasons == LEADER).any() else 'turn'
        yaw = np.unwrap(self.trajectory.pose(times)[2])
        return 'turn' if np.abs(yaw - yaw[0]).max() >= _TURN_RAD else 'keep'
