"""Annotation stage: a rendering in, the class of every pixel and the 2-D boxes of what is visible out (image pixels).

They lie in `camera_labels/`, outside the nuScenes schema: `classes.json`, and for each keyframe image a PNG of class ids and
a JSON of boxes under the image's own name. Pixels are those of the image as it was written, lens distortion included; whole
numbers are pixel centres, so a box around pixels a to b reaches from a - 0.5 to b + 0.5.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from projects.synthetic_nuscenes.agents import Agent
from projects.synthetic_nuscenes.annotate import Annotator
from projects.synthetic_nuscenes.renderer import Rendering
from projects.synthetic_nuscenes.snapshot import GROUND_OWNER, SKY_OWNER, STATIC_OWNER
from projects.synthetic_nuscenes.transforms import FloatArray, apply, box_corners, yaw_rotation

LABELS_FOLDER = 'camera_labels'
# nuScenes' ten detection classes in its order, which are the kinds of agent, then the rest. Ids are positions here.
PIXEL_CLASSES: tuple[str, ...] = (
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone',
    'ground', 'static', 'sky',
)
IGNORED_ID = 255
_DEPTH_SLACK_M = 0.5


def write_class_names(root: Path) -> None:
    """Write `classes.json`, the names in the order of their ids."""
    text = json.dumps({'classes': list(PIXEL_CLASSES), 'ignored_id': IGNORED_ID}, indent=1)
    (root / LABELS_FOLDER / 'classes.json').write_text(text)


def pixel_classes(owner: np.ndarray, agents: tuple[Agent, ...]) -> np.ndarray:
    """(H, W) uint8 positions in `PIXEL_CLASSES`, `IGNORED_ID` where nothing was rendered, from a rendering's owners."""
    classes = np.full(owner.shape, IGNORED_ID, dtype=np.uint8)
    for name, code in (('ground', GROUND_OWNER), ('static', STATIC_OWNER), ('sky', SKY_OWNER)):
        classes[owner == code] = PIXEL_CLASSES.index(name)
    of_agent = np.array([PIXEL_CLASSES.index(agent.kind_name) for agent in agents], dtype=np.uint8)
    shown = owner >= 0
    classes[shown] = of_agent[owner[shown]]
    return classes


def visible_boxes(owner: np.ndarray, depth_m: np.ndarray, depth_range_m: FloatArray) -> dict[int, list[float]]:
    """Box x1, y1, x2, y2 in px around the visible pixels of each agent, by agent index.

    Args:
        owner, depth_m: (H, W) of a rendering.
        depth_range_m: (A, 2) depth of each agent's nearest and farthest corner. Pixels beyond it are left out: the renderer
            draws a few of a face seen edge-on at a wrong depth, in front of what hides it.
    """
    rows, columns = np.nonzero(owner >= 0)
    low, high = depth_range_m[owner[rows, columns]].T
    depth = depth_m[rows, columns]
    right = (depth >= low - _DEPTH_SLACK_M) & (depth <= high + _DEPTH_SLACK_M)
    rows, columns = rows[right], columns[right]
    agents = owner[rows, columns]
    order = np.argsort(agents, kind='stable')
    indices, starts = np.unique(agents[order], return_index=True)
    boxes = {}
    for index, group in zip(indices.tolist(), np.split(order, starts[1:])):
        x, y = columns[group], rows[group]
        boxes[index] = [float(x.min()) - 0.5, float(y.min()) - 0.5, float(x.max()) + 0.5, float(y.max()) + 0.5]
    return boxes


class CameraLabelWriter:
    """Writes the labels of one scene's keyframe images below `root`.

    Args:
        root: folder of the data set.
        annotator: it has seen the scene's LiDAR points, so it knows which agents are annotated when.
        lens: name of the lens model, 'pinhole', 'radtan' or 'fisheye'.
    """

    def __init__(self, root: Path, annotator: Annotator, lens: str) -> None:
        self.root, self.annotator, self.lens = root, annotator, lens
        agents = range(len(annotator.scene.agents))
        self._annotated = [frozenset(annotator.annotated_keyframes(index)) for index in agents]

    def write(self, image: str, rendering: Rendering, keyframe: int, t_s: float, cam_from_global: FloatArray) -> None:
        """Write the labels of one image.

        Args:
            image: path of the image below the root, `samples/CHANNEL/NAME.jpg`.
            rendering: what the camera saw.
            keyframe: index of the sample in its scene.
            t_s: the camera's own time.
            cam_from_global: (4, 4) at that time.
        """
        agents = self.annotator.scene.agents
        path = self.root / LABELS_FOLDER / Path(image).parent.name / Path(image).name
        poses = [agent.pose(t_s) for agent in agents]
        centers = np.array([center for center, _ in poses])
        half_sizes = np.array([agent.size_lwh_m for agent in agents]) / 2
        corners = box_corners(centers, yaw_rotation(np.array([yaw for _, yaw in poses])), half_sizes)
        depths = apply(cam_from_global, corners)[..., 2]
        depth_range = np.stack([depths.min(axis=1), depths.max(axis=1)], axis=1)
        boxes: list[dict[str, Any]] = []
        for index, box_px in visible_boxes(rendering.owner, rendering.depth_m, depth_range).items():
            boxes.append(
                {
                    'class': agents[index].kind_name,
                    'box_px': box_px,
                    'depth_m': round(float(depths[index].mean()), 6),
                    'visible_fraction': round(rendering.seen_share[index], 6),
                    **self._tokens(index, keyframe),
                }
            )
        height, width = rendering.owner.shape
        content = {'image': image, 'width': width, 'height': height, 'lens': self.lens, 'boxes': boxes}
        path.with_suffix('.json').write_text(json.dumps(content))
        encoded = cv2.imencode('.png', pixel_classes(rendering.owner, agents))[1]
        path.with_suffix('.png').write_bytes(encoded.tobytes())

    def _tokens(self, index: int, keyframe: int) -> dict[str, str]:
        """Tokens of the tables; empty where there is no such row (too far, or the LiDAR never met the agent)."""
        annotated = self._annotated[index]
        return {
            'instance_token': self.annotator.instance_token(index) if annotated else '',
            'annotation_token': self.annotator.annotation_token(index, keyframe) if keyframe in annotated else '',
        }
