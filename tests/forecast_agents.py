"""Agents made by hand, for tests of forecasting: moving boxes on a plane, and what the devkit's helper would say of them."""

from __future__ import annotations

import numpy as np
import torch

from projects.memfusion.structures import Agents


def straight_agents(speeds: list[float], frames: int = 3, scene: str = 's', seed: int = 0,
                    accelerations: list[float] | None = None, appears: list[int] | None = None) -> Agents:
    """One scene of cars that drive straight on from random places and headings; `appears` is each one's first frame."""
    made, count = np.random.default_rng(seed), len(speeds)
    gain = np.zeros(count) if accelerations is None else np.array(accelerations)
    speed = np.array(speeds, dtype=float).reshape(count)
    yaw, place = made.uniform(-np.pi, np.pi, count), made.uniform(-20, 20, (count, 2))
    past_s, future_s = 0.5 * np.arange(1 - frames, 1), 0.5 * np.arange(1, 13)

    def ahead(time_s: np.ndarray) -> np.ndarray:
        return np.where(time_s > 0, np.maximum(speed[:, None] * time_s + gain[:, None] * time_s ** 2 / 2, 0),
                        speed[:, None] * time_s)

    there = np.arange(frames) >= np.zeros(count, dtype=int)[:, None] + (
        np.zeros((count, 1), dtype=int) if appears is None else np.array(appears)[:, None])
    history = np.stack([np.zeros((count, frames)), ahead(past_s)], axis=-1)
    kinematics = np.zeros((count, frames, 8))
    kinematics[..., 1], kinematics[..., 2] = speed[:, None] / 2, speed[:, None]
    kinematics[..., 6], kinematics[..., 7] = 1, 1
    direction = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    boxes = np.zeros((count, frames, 7))
    boxes[..., :2] = place[:, None] + direction[:, None] * ahead(past_s)[..., None]
    boxes[..., 3:6], boxes[..., 6] = (4.5, 1.9, 1.6), yaw[:, None]
    pose = np.tile(np.eye(4), (count, 1, 1))
    pose[:, 0, 0], pose[:, 0, 1], pose[:, 1, 0], pose[:, 1, 1] = np.sin(yaw), np.cos(yaw), -np.cos(yaw), np.sin(yaw)
    pose[:, :2, 3] = place + (400.0, 1100.0)
    known = there[..., None]
    future = np.stack([np.zeros((count, 12)), ahead(future_s)], axis=-1)
    return Agents(
        valid=torch.ones(1, count, dtype=torch.bool), history_xy=torch.tensor(history * known)[None],
        history_valid=torch.tensor(there)[None], kinematics=torch.tensor(kinematics * known)[None],
        future_xy=torch.tensor(future)[None], future_valid=torch.ones(1, count, 12, dtype=torch.bool),
        boxes=torch.tensor(boxes * known)[None], global_from_agent=torch.tensor(pose)[None],
        tokens=(tuple(f'i{number}_{scene}' for number in range(count)),))


def permuted(agents: Agents, order: list[int]) -> Agents:
    """The agents of one scene in another order."""
    return Agents(tokens=(tuple(agents.tokens[0][at] for at in order),),
                  **{name: tensor[:, order] for name, tensor in agents.tensors().items()})
