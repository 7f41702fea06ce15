"""Annotation stage: agents, keyframe sweeps and renderings in, instance and sample_annotation records out (world)."""

from __future__ import annotations

from typing import Any

import numpy as np

from projects.synthetic_nuscenes.agents import Agent
from projects.synthetic_nuscenes.naming import token
from projects.synthetic_nuscenes.scene import ANNOTATED_RANGE_M, Scene
from projects.synthetic_nuscenes.transforms import FloatArray, rotation_to_wxyz, yaw_rotation

Record = dict[str, Any]


def points_in_agent(agent: Agent, t_s: float, points: FloatArray) -> int:
    """Number of (N, 3) world points inside the annotated box, its faces included (as the devkit counts)."""
    center, yaw = agent.pose(t_s)
    offset = points - center
    half = np.asarray(agent.size_lwh_m) / 2
    offset = offset[(np.abs(offset) <= np.hypot(half[0], half[1]) + half[2]).all(axis=1)]
    local = np.einsum('ji,nj->ni', yaw_rotation(np.array(yaw)), offset)
    return int((np.abs(local) <= half).all(axis=1).sum())


def visibility_level(visible_px: int, alone_px: int) -> str:
    """nuScenes' level 1 to 4 from pixels seen in all cameras together; 1 where no camera looks."""
    share = visible_px / alone_px if alone_px else 0.0
    return '4' if share > 0.8 else '3' if share > 0.6 else '2' if share > 0.4 else '1'


class Annotator:
    """Collects what the sensors saw of each agent at each keyframe, then writes the records of a scene."""

    def __init__(self, scene: Scene, seed: int, times_s: list[float]) -> None:
        shape = (len(times_s), len(scene.agents))
        self.scene, self.seed, self.times_s = scene, seed, times_s
        self._ego_xyz = [scene.ego_pose(t_s)[:3, 3] for t_s in times_s]
        self.points = np.zeros(shape, dtype=int)
        self.visible_px = np.zeros(shape, dtype=int)
        self.alone_px = np.zeros(shape, dtype=int)

    def see_points(self, keyframe: int, points: FloatArray) -> None:
        """Count a keyframe's (N, 3) world points."""
        for index, agent in enumerate(self.scene.agents):
            self.points[keyframe, index] = points_in_agent(agent, self.times_s[keyframe], points)

    def see_picture(self, keyframe: int, owner: np.ndarray, alone_px: dict[int, int]) -> None:
        """Count the pixels of one camera's keyframe."""
        owners, counts = np.unique(owner[owner >= 0], return_counts=True)
        self.visible_px[keyframe, owners] += counts
        for index, count in alone_px.items():
            self.alone_px[keyframe, index] += count

    def annotated_keyframes(self, index: int) -> range:
        """Keyframes from the first to the last within range; none where the LiDAR never met the agent."""
        near = []
        for keyframe, t_s in enumerate(self.times_s):
            offset = self.scene.agents[index].pose(t_s)[0] - self._ego_xyz[keyframe]
            if np.hypot(offset[0], offset[1]) <= ANNOTATED_RANGE_M:
                near.append(keyframe)
        frames = range(near[0], near[-1] + 1) if near else range(0)
        return frames if len(frames) and self.points[list(frames), index].any() else range(0)

    def instance_token(self, index: int) -> str:
        """Token of an agent's instance row, which is there if it is annotated in any keyframe."""
        return token(self.seed, self.scene.name, 'instance', self.scene.agents[index].name)

    def annotation_token(self, index: int, keyframe: int) -> str:
        """Token of an agent's annotation row in a keyframe, which is there if it is annotated in it."""
        return token(self.seed, self.scene.name, 'annotation', self.scene.agents[index].name, keyframe)

    def records(self) -> tuple[list[Record], list[Record]]:
        """Instance and sample_annotation records."""
        instances: list[Record] = []
        annotations: list[Record] = []
        for index, agent in enumerate(self.scene.agents):
            frames = self.annotated_keyframes(index)
            if not frames:
                continue
            tokens = {frame: self.annotation_token(index, frame) for frame in frames}
            instance_token = self.instance_token(index)
            instances.append(
                {
                    'token': instance_token,
                    'category_token': token(0, 'category', agent.kind.category),
                    'nbr_annotations': len(frames),
                    'first_annotation_token': tokens[frames[0]],
                    'last_annotation_token': tokens[frames[-1]],
                }
            )
            for frame in frames:
                annotations.append(self._annotation(agent, index, frame, tokens, instance_token))
        return instances, annotations

    def _annotation(
        self, agent: Agent, index: int, frame: int, tokens: dict[int, str], instance_token: str
    ) -> Record:
        center, yaw = agent.pose(self.times_s[frame])
        attribute = agent.attribute(self.times_s[frame])
        length, width, height = agent.size_lwh_m
        visible, alone = int(self.visible_px[frame, index]), int(self.alone_px[frame, index])
        return {
            'token': tokens[frame],
            'sample_token': token(self.seed, self.scene.name, 'sample', frame),
            'instance_token': instance_token,
            'visibility_token': visibility_level(visible, alone),
            'attribute_tokens': [token(0, 'attribute', attribute)] if attribute else [],
            'translation': [float(value) for value in center],
            'size': [width, length, height],
            'rotation': rotation_to_wxyz(yaw_rotation(np.array(yaw))),
            'prev': tokens.get(frame - 1, ''),
            'next': tokens.get(frame + 1, ''),
            'num_lidar_pts': int(self.points[frame, index]),
            'num_radar_pts': 0,
        }
