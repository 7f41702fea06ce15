"""Sensor stage: every surface of a scene at one instant, as flat arrays of boxes and ellipsoids in the world frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from projects.synthetic_nuscenes.agents import part_geometry
from projects.synthetic_nuscenes.scene import Scene
from projects.synthetic_nuscenes.transforms import FloatArray, yaw_rotation

# What a pixel shows where it shows no agent: scenery, the ground plane, the sky, or nothing that was rendered.
STATIC_OWNER, GROUND_OWNER, SKY_OWNER, UNSEEN_OWNER = -1, -2, -3, -4


@dataclass(frozen=True)
class Primitives:
    """M upright solids.

    Attributes:
        centers: (M, 3) world; rotations: (M, 3, 3); half_sizes: (M, 3).
        is_blob: (M,) ellipsoid instead of box.
        owner: (M,) index into `scene.agents`, or -1 for scenery.
        reflectance: (M,) of 255.
        colours_bgr: (M, 3); textures: M names.
    """

    centers: FloatArray
    rotations: FloatArray
    half_sizes: FloatArray
    is_blob: np.ndarray
    owner: np.ndarray
    reflectance: FloatArray
    colours_bgr: np.ndarray
    textures: tuple[str, ...]


class SceneSnapshots:
    """Makes `Primitives` at any time; only what moves is computed again."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        solids, agents = scene.solids, scene.agents
        geometry = [part_geometry(agent, 0.0) for agent in agents]
        counts = [len(centers) for centers, _, _ in geometry]
        starts = len(solids) + np.concatenate([[0], np.cumsum(counts)])
        rows = [slice(first, last) for first, last in zip(starts, starts[1:])]
        self._movers = [(agent, place) for agent, place in zip(agents, rows) if not agent.is_static()]
        yaws = np.array([solid.yaw_rad for solid in solids])
        self._centers = np.concatenate([np.array([s.center_m for s in solids]), *[g[0] for g in geometry]])
        self._rotations = np.concatenate([yaw_rotation(yaws), *[g[1] for g in geometry]])
        self._half_sizes = np.concatenate([np.array([s.half_size_m for s in solids]), *[g[2] for g in geometry]])
        self._is_blob = np.zeros(len(self._centers), dtype=bool)
        self._is_blob[: len(solids)] = [solid.shape == 'blob' for solid in solids]
        self._owner = np.concatenate([np.full(len(solids), STATIC_OWNER), np.repeat(np.arange(len(agents)), counts)])
        self._reflectance = np.concatenate(
            [[s.reflectance for s in solids], np.repeat([a.reflectance for a in agents], counts)]
        )
        colours = [s.colour_bgr for s in solids] + [a.colour_bgr for a in agents for _ in a.parts]
        self._colours = np.array(colours, dtype=np.float64)
        names = [s.texture for s in solids]
        names += [part.texture if part.texture != 'side' else a.kind.texture for a in agents for part in a.parts]
        self._textures = tuple(names)

    def at(self, t_s: float) -> Primitives:
        """All surfaces at scene time t."""
        centers, rotations = self._centers.copy(), self._rotations.copy()
        for agent, rows in self._movers:
            centers[rows], rotations[rows], _ = part_geometry(agent, t_s)
        return Primitives(
            centers, rotations, self._half_sizes, self._is_blob, self._owner, self._reflectance, self._colours,
            self._textures,
        )
