"""Contract, no network. In: agents, boxes that a detector found in their frame (BEV). Out: the found ones as agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .agents import KINEMATICS, Agents

STEP_S = 0.5
REVERSE_MPS = 1.0
"""A box that goes backwards faster than this is one that was found turned by half; slower ones may stand, with some noise."""


def match_detections(centers: Tensor, boxes: Tensor, scores: Tensor, within_m: float) -> tuple[Tensor, Tensor]:
    """Gives each agent at most one box: in order of score, each box goes to the nearest agent left within the distance.

    Args:
        centers: (n, 2) metres.
        boxes: (m, 7+); scores: (m,).

    Returns:
        Positions of the agents and of their boxes, int64 on the CPU, in the agents' order.
    """
    distance = torch.cdist(boxes[:, :2].double().cpu(), centers.double().cpu())
    found: dict[int, int] = {}
    for row in scores.argsort(descending=True, stable=True).tolist():
        if not len(centers):
            break
        nearest_m, agent = distance[row].min(dim=0)
        if float(nearest_m) <= within_m:
            found[int(agent)] = row
            distance[:, int(agent)] = torch.inf
    matched = sorted(found)
    return torch.tensor(matched, dtype=torch.int64), torch.tensor([found[agent] for agent in matched], dtype=torch.int64)


def detected_agents(agents: Agents, boxes: Tensor, scores: Tensor, global_from_bev: Tensor, within_m: float) -> Agents:
    """The agents of one scene that were found, as the detector knows them: the box of now and its velocity, no past.

    Args:
        agents: B = 1.
        boxes: (m, 9) as mmdet3d's LiDAR boxes with velocity, BEV frame; a velocity that is NaN counts 0.
        scores: (m,).
        global_from_bev: (4, 4) float64.
        within_m: how far from an agent's centre a box may be that is it.

    Returns:
        Agents with the frame and the history of their boxes, and the true agents' tokens; futures are left unknown.
    """
    count = len(agents.tokens[0])
    at, rows = match_detections(agents.boxes[0, :count, -1, :2], boxes, scores, within_m)
    device = agents.valid.device
    box = boxes[rows.to(boxes.device)].double().to(device)
    velocity, yaw = torch.where(box[:, 7:9].isnan(), 0.0, box[:, 7:9]), box[:, 6]
    yaw = yaw + torch.pi * (velocity[:, 0] * yaw.cos() + velocity[:, 1] * yaw.sin() < -REVERSE_MPS)
    cos, sin, speed = yaw.cos(), yaw.sin(), velocity.norm(dim=-1)
    picked: dict[str, Any] = {name: tensor[:, at.to(device)] for name, tensor in agents.tensors().items()}
    kinematics = torch.zeros_like(picked['kinematics'])
    values = dict(dx=STEP_S * (velocity[:, 0] * sin - velocity[:, 1] * cos),
                  dy=STEP_S * (velocity[:, 0] * cos + velocity[:, 1] * sin),
                  speed=speed, cos=torch.ones_like(speed), valid=torch.ones_like(speed))
    for name, value in values.items():
        kinematics[0, :, -1, KINEMATICS.index(name)] = value
    now, places, pose = torch.zeros_like(picked['history_valid']), torch.zeros_like(picked['boxes']), bev_from_agent(box, yaw)
    now[..., -1] = True
    places[0, :, -1] = torch.cat([box[:, :6], yaw[:, None]], dim=-1)
    return replace(
        agents, **picked | dict(
            kinematics=kinematics, history_valid=now, boxes=places, history_xy=torch.zeros_like(picked['history_xy']),
            future_xy=torch.zeros_like(picked['future_xy']), future_valid=torch.zeros_like(picked['future_valid']),
            global_from_agent=(global_from_bev.to(pose) @ pose)[None]),
        tokens=(tuple(agents.tokens[0][one] for one in at.tolist()),))


def bev_from_agent(boxes: Tensor, yaw: Tensor) -> Tensor:
    """(n, 4, 4) from the frames of agents, heading along +y, to the BEV frame of boxes (n, 7+) with yaw (n,)."""
    pose = torch.eye(4, dtype=boxes.dtype, device=boxes.device).repeat(len(boxes), 1, 1)
    pose[:, 0, 0], pose[:, 0, 1], pose[:, 1, 0], pose[:, 1, 1] = yaw.sin(), yaw.cos(), -yaw.cos(), yaw.sin()
    pose[:, :3, 3] = boxes[:, :3]
    return pose
