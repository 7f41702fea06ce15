"""Pillars for inference. In: padded voxels (V, M, C). Out: their features (V, D), and BEV canvases (B, D, H, W)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.models.middle_encoders import PointPillarsScatter
from mmdet3d.models.voxel_encoders import HardVFE, PillarFeatureNet
from mmdet3d.models.voxel_encoders.utils import PFNLayer, VFELayer
from torch import Tensor, nn


class RealPointEncoder(nn.Module):
    """What a PillarFeatureNet or HardVFE computes, without its layers running on every padded slot.

    All padded slots of a pillar are alike in every layer, so one stands for all: it takes part in the maximum as they do.

    Args:
        encoder: whose layers are taken, with their names; see `replaces`.
    """

    voxel_size: Tensor
    first_center: Tensor

    def __init__(self, encoder: PillarFeatureNet | HardVFE) -> None:
        super().__init__()
        name = 'pfn_layers' if isinstance(encoder, PillarFeatureNet) else 'vfe_layers'
        self.layers: Any = getattr(encoder, name)
        self.with_distance, self.with_cluster = encoder._with_distance, encoder._with_cluster_center
        self.with_center, self.legacy = encoder._with_voxel_center, getattr(encoder, 'legacy', False)
        for key, values in (('voxel_size', (encoder.vx, encoder.vy, encoder.vz)),
                            ('first_center', (encoder.x_offset, encoder.y_offset, encoder.z_offset))):
            self.register_buffer(key, torch.tensor(values), persistent=False)

    @staticmethod
    def replaces(module: Any) -> bool:
        """Whether the encoder is one of mmdet3d's own that take maxima and give one feature a pillar."""
        if type(module) is PillarFeatureNet:
            return all(type(layer) is PFNLayer and layer.mode == 'max' for layer in module.pfn_layers)
        return type(module) is HardVFE and module.fusion_layer is None and all(
            type(layer) is VFELayer and layer.max_out for layer in module.vfe_layers)

    def forward(self, features: Tensor, num_points: Tensor, coors: Tensor, *_: Any) -> Tensor:
        """features (V, M, C) with zeros in padded slots, num_points (V,), coors (V, 4) as batch, z, y, x -> (V, D)."""
        slots = torch.arange(features.shape[1], device=features.device)
        # The points, and one padded slot where a pillar has any.
        pillar, slot = (slots <= num_points[:, None]).nonzero(as_tuple=True)
        lengths = (num_points.long() + 1).clamp(max=features.shape[1])
        rows = self._decorate(features, num_points, coors, pillar, slot)
        rows = rows * (slot < num_points[pillar])[:, None]
        maxima = rows
        for index, layer in enumerate(self.layers):
            rows = F.relu(layer.norm(layer.linear(rows)))
            maxima = torch.segment_reduce(rows, 'max', lengths=lengths, axis=0)
            if index < len(self.layers) - 1:
                rows = torch.cat([rows, maxima[pillar]], dim=1)
        return maxima

    def _decorate(self, features: Tensor, num_points: Tensor, coors: Tensor, pillar: Tensor, slot: Tensor) -> Tensor:
        """(R, C') what the first layer sees of each row, in the encoders' order."""
        points = features[pillar, slot]
        parts, xyz = [points], points[:, :3]
        if self.with_cluster:
            mean = features[:, :, :3].sum(dim=1) / num_points.type_as(features)[:, None]
            parts.append(xyz - mean[pillar])
        if self.with_center:
            center = coors[:, [3, 2, 1]].type_as(features) * self.voxel_size + self.first_center
            centered = xyz - center[pillar]
            if self.legacy:  # the encoder overwrites the points then
                parts[0], xyz = torch.cat([centered, points[:, 3:]], dim=1), centered
            parts.append(centered)
        if self.with_distance:
            parts.append(xyz.norm(dim=1, keepdim=True))
        return torch.cat(parts, dim=1)


class ChannelsLastScatter(nn.Module):
    """mmdet3d's PointPillarsScatter, for a batch at once; its canvas is stored channels last, so that pillars are rows."""

    def __init__(self, scatter: PointPillarsScatter) -> None:
        super().__init__()
        self.in_channels, self.ny, self.nx = scatter.in_channels, scatter.ny, scatter.nx

    def forward(self, voxel_features: Tensor, coors: Tensor, batch_size: int | None = None) -> Tensor:
        """voxel_features (V, C), coors (V, 4) as batch, z, y, x -> (B, C, ny, nx); without batch size all are of one frame."""
        frame, _, row, column = coors.long().unbind(dim=1)
        cell = row * self.nx + column
        if batch_size is not None:
            cell = frame * (self.ny * self.nx) + cell
        canvas = voxel_features.new_zeros((batch_size or 1) * self.ny * self.nx, self.in_channels)
        return canvas.index_copy_(0, cell, voxel_features).view(-1, self.ny, self.nx, self.in_channels).permute(0, 3, 1, 2)
