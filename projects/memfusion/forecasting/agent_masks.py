"""Forecasting: where agents are in the frames. In: Agents, the frames' range or cameras. Out: masks, centres.

Masks are per sample, agent and frame; where an agent was not there its mask is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projects.geometry import BEVGrid, Surroundings, full_precision, rasterize_box_batch
from projects.memfusion.structures import Agents, Calibration


@dataclass(frozen=True)
class AgentMasks:
    """Agents in the pixels of T frames (T = H of the agents).

    Attributes:
        masks: (B, T, A, H, W) float, 0 or 1.
        centers_px: (B, T, A, 2) x and y; column 0 begins at 0.
        there: (B, T, A) bool, whether the agent was in that frame at all.
        around_px: (B, T, A, P, 2) as centers_px, the points around each agent; None where none were asked for.
    """

    masks: Tensor
    centers_px: Tensor
    there: Tensor
    around_px: Tensor | None = None


@full_precision
def bev_masks(agents: Agents, point_cloud_range: Sequence[float], shape: tuple[int, int],
              around: Surroundings | None = None) -> AgentMasks:
    """Ground rectangles of the agents' boxes on BEV frames.

    Args:
        point_cloud_range: what the frames cover, metres, in the agents' BEV frame.
        shape: (H, W), row 0 at the lowest y, column 0 at the lowest x.
        around: points around each agent that are wanted too.
    """
    batch, count, length = agents.history_valid.shape
    there = (agents.history_valid & agents.valid[..., None]).transpose(1, 2)  # (B, T, A)
    boxes = agents.boxes.transpose(1, 2)
    grid = BEVGrid.of_shape(point_cloud_range, shape)
    masks = rasterize_box_batch(boxes.reshape(-1, 1, 7), there.reshape(-1, 1), grid).view(batch, length, count, *shape)
    low, cell = boxes.new_tensor(grid.point_cloud_range[:2]), boxes.new_tensor(grid.cell_m)
    places_px = None if around is None else ((around.places_m(boxes) - low) / cell).float()
    return AgentMasks(masks.float(), ((boxes[..., :2] - low) / cell).float(), there, places_px)


@full_precision
def image_masks(agents: Agents, calibration: Calibration, camera: int, shape: tuple[int, int]) -> AgentMasks:
    """Rectangles around the agents' boxes in one camera.

    Args:
        calibration: of the B x T frames, clip-major, each as seen from the agents' BEV frame.
        camera: which of its cameras.
        shape: (H, W) of the images.
    """
    batch, count, length = agents.history_valid.shape
    there = (agents.history_valid & agents.valid[..., None]).transpose(1, 2)
    boxes = agents.boxes.transpose(1, 2).flatten(0, 1)  # (B T, A, 7)
    corners = box_corners(boxes)
    points = torch.cat([corners, boxes[..., None, :3] + torch.stack([
        torch.zeros_like(boxes[..., 5]), torch.zeros_like(boxes[..., 5]), boxes[..., 5] / 2], dim=-1)[..., None, :]], dim=2)
    camera_points = calibration.to_cam(points.flatten(1, 2).float())
    pixels, _, in_front = calibration.project_cam(camera_points)
    pixels, in_front = (part[:, camera].unflatten(1, (count, 9)) for part in (pixels, in_front))
    seen = in_front[..., :8, None]
    low = pixels[..., :8, :].masked_fill(~seen, torch.inf).amin(dim=2)
    high = pixels[..., :8, :].masked_fill(~seen, -torch.inf).amax(dim=2)
    columns = torch.arange(shape[1], device=low.device) + 0.5
    rows = torch.arange(shape[0], device=low.device) + 0.5
    across = (columns >= low[..., 0, None]) & (columns <= high[..., 0, None])  # (B T, A, W)
    down = (rows >= low[..., 1, None]) & (rows <= high[..., 1, None])
    masks = (down[..., None] & across[..., None, :]).view(batch, length, count, *shape) & there[..., None, None]
    centers = torch.where(in_front[..., 8, None], pixels[..., 8, :], pixels.new_full((), -1e4))
    return AgentMasks(masks.float(), centers.view(batch, length, count, 2), there)


def box_corners(boxes: Tensor) -> Tensor:
    """(..., 7) boxes as mmdet3d's LiDAR boxes -> (..., 8, 3) corners, the bottom's four first, in order around it."""
    signs = boxes.new_tensor([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0], [1, 1, 2], [1, -1, 2], [-1, -1, 2], [-1, 1, 2]])
    offset = signs * boxes[..., None, 3:6] / 2
    cos, sin = boxes[..., 6, None].cos(), boxes[..., 6, None].sin()
    turned = torch.stack([offset[..., 0] * cos - offset[..., 1] * sin, offset[..., 0] * sin + offset[..., 1] * cos,
                          offset[..., 2]], dim=-1)
    return boxes[..., None, :3] + turned
