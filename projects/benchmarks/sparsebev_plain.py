"""Benchmark, sampling and mixing of SparseBEV in plain torch, in the published order. In: its layer's weights. Out: the same.

Every point is projected into every camera of every frame, the first camera that shows it is chosen, and the maps, regrouped so
that frames and groups stand in the batch, are read with a three-dimensional grid_sample whose third axis is the camera. What
the published code does oddly is done here: SparseBEVHead's quirks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.memfusion.queries.adaptive_mixing import AdaptiveMixing
from projects.memfusion.queries.adaptive_sampling import AdaptiveSampling


def regrouped(levels: Sequence[Tensor], num_groups: int) -> list[Tensor]:
    """(B, T, N, E, h, w) each -> (B * T * G, E / G, N, h, w) each; once for all layers."""
    return [level.unflatten(3, (num_groups, -1)).permute(0, 1, 3, 4, 2, 5, 6).flatten(0, 2).contiguous() for level in levels]


def project(points_m: Tensor, img_from_lidar: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(B, T, Q, G, P, 3), (B, T, N, 4, 4) -> pixels (B, T, N, Q * G * P, 2), 0..1 of the image, and whether they are in it."""
    points = F.pad(points_m.flatten(2, 4), (0, 1), value=1.0)[:, :, None, :, :, None]
    seen = (img_from_lidar[:, :, :, None] @ points)[..., 0]
    depth_m = seen[..., 2:3]
    uv = seen[..., :2] / depth_m.clamp(min=1e-5) / seen.new_tensor([image_hw[1], image_hw[0]])
    return uv, ((depth_m > 1e-5) & (uv > 0) & (uv < 1)).all(-1)


def plain_sampling(layer: AdaptiveSampling, boxes: Tensor, query: Tensor, groups_of_levels: Sequence[Tensor],
                   img_from_lidar: Tensor, image_hw: tuple[int, int], gaps_s: Tensor) -> Tensor:
    """(B, Q, G, T * P, E / G).

    Args:
        layer: whose weights are used.
        boxes, query, gaps_s: as in AdaptiveSampling.
        groups_of_levels: of `regrouped`.
        img_from_lidar: (B, T, N, 4, 4), LiDAR frame of now to the pixels of then.
        image_hw: height and width of the images.
    """
    batch, queries, (groups, points) = boxes.shape[0], boxes.shape[1], layer.shape
    frames, cameras = img_from_lidar.shape[1:3]
    moved = layer.moved(layer.points(boxes, layer.offsets(query)), boxes, gaps_s)
    uv, valid = project(moved, img_from_lidar, image_hw)
    camera = valid.int().argmax(2, keepdim=True)  # the first, or camera 0
    uv = uv.gather(2, camera[..., None].expand(-1, -1, -1, -1, 2))[:, :, 0]
    depth = camera[:, :, 0, :, None].to(uv) / max(cameras - 1, 1)
    grid = (torch.cat([uv, depth], dim=-1) * 2 - 1).unflatten(2, (queries, groups, points))
    grid = grid.permute(0, 1, 3, 2, 4, 5).flatten(0, 2)[:, :, :, None]  # (B * T * G, Q, P, 1, 3)
    weights = layer.level_weights(query)[:, :, :, None].expand(-1, -1, -1, frames, -1, -1)
    # Frames stand inside of groups here, and outside in the maps.
    weights = weights.permute(0, 2, 3, 1, 4, 5).reshape(batch * groups * frames, queries, points, -1)
    total = torch.zeros((), device=uv.device)
    for level, weight in zip(groups_of_levels, weights.unbind(-1)):
        sampled = F.grid_sample(level, grid, mode='bilinear', padding_mode='zeros', align_corners=True)[..., 0]
        total = total + sampled * weight[:, None]
    total = total.unflatten(0, (batch, frames, groups)).permute(0, 4, 2, 1, 5, 3)  # (B, Q, G, T, P, c)
    return total.flatten(3, 4)


def plain_mixing(layer: AdaptiveMixing, features: Tensor, query: Tensor) -> Tensor:
    """As AdaptiveMixing, for all queries at once."""
    batch, queries, groups, points, channels = features.shape
    params = layer.parameter_generator(query).reshape(batch * queries, groups, -1)
    over_channels, over_points = params.split([channels ** 2, points * layer.out_points], 2)
    mixed = features.reshape(batch * queries, groups, points, channels)
    mixed = torch.matmul(mixed, over_channels.reshape(batch * queries, groups, channels, channels))
    mixed = F.relu(F.layer_norm(mixed, [points, channels]))
    mixed = torch.matmul(over_points.reshape(batch * queries, groups, layer.out_points, points), mixed)
    mixed = F.relu(F.layer_norm(mixed, [layer.out_points, channels]))
    return query + layer.out_proj(mixed.reshape(batch, queries, -1))
