"""World stage, the oracle's unit: one scene, with every pose exact at any time (world)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from projects.synthetic_nuscenes.agents import Agent
from projects.synthetic_nuscenes.maneuvers import ManeuverLog
from projects.synthetic_nuscenes.motion import RoadMotion
from projects.synthetic_nuscenes.road import Ground, Road
from projects.synthetic_nuscenes.scenery import Solid
from projects.synthetic_nuscenes.streets import side_street
from projects.synthetic_nuscenes.transforms import FloatArray, make_transform

EGO_SIZE_LW_M = (4.1, 1.75)
EGO_CENTER_AHEAD_M = 1.3
ANNOTATED_RANGE_M = 60.0


@dataclass(frozen=True)
class Scene:
    """One scene of the world; times are seconds since its first keyframe.

    Attributes:
        name: nuScenes scene name; kind: what the ego does in it.
        agents: annotated objects; solids: fixed, not annotated.
        map_size_m: (x, y) size of the map, whose origin is the world's.
        map_origin_m: (x, y) corner of the part of it that the scene's pictures show.
        location: name of the map; those of nuScenes have map files.
        junctions_s_m: middles of the crossings with side streets, along the road.
        crosswalks_s_m: where people cross, along the road.
        maneuvers: of the agents in traffic, by name.
    """

    name: str
    kind: str
    duration_s: float
    road: Road
    ground: Ground
    ego_motion: RoadMotion
    agents: tuple[Agent, ...]
    solids: tuple[Solid, ...]
    map_size_m: tuple[float, float]
    map_origin_m: tuple[float, float] = (0.0, 0.0)
    location: str = 'synthetic-town'
    junctions_s_m: tuple[float, ...] = ()
    crosswalks_s_m: tuple[float, ...] = ()
    maneuvers: Mapping[str, ManeuverLog] = field(default_factory=dict)

    @property
    def side_streets(self) -> tuple[Road, ...]:
        """Those at the junctions, each as wide as `SIDE_STREET_HALF_M` on both sides of its line."""
        return tuple(side_street(self.road, s) for s in self.junctions_s_m)

    def ego_pose(self, t_s: float) -> FloatArray:
        """global_from_ego (4, 4) at t; the origin is the middle of the rear axle, on the ground."""
        x, y, yaw = (float(value) for value in self.ego_motion.pose(float(t_s)))
        z = float(self.ground.height(x, y))
        return make_transform(self.ground.upright(yaw), np.array([x, y, z]))

    def agent(self, name: str) -> Agent:
        """Find an agent by name.

        Raises:
            KeyError: no such agent.
        """
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise KeyError(f'no agent {name!r} in {self.name}')
