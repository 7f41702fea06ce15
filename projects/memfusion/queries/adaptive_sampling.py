"""Queries. In: boxes, their features, frames of images, a LiDAR BEV map. Out: what each box's own points read there.

Adaptive spatio-temporal sampling of SparseBEV (Liu et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from projects.geometry.precision import full_precision
from projects.memfusion.structures import Looks, PastFrame

from .map_reading import MapPoints, read_maps
from .sampled_frames import seen_points


class AdaptiveSampling(nn.Module):
    """Every query chooses G x P points in and around its box, and how much each image level counts at them.

    The points move with the box: scaled by its size, turned by its yaw, and back along its velocity for earlier frames. On the
    LiDAR's BEV map, the last source, they stand where they are now.

    Args:
        dim: E of queries and maps; the G groups share its channels.
        num_groups, num_points, num_levels: G, P, L; no levels where there are no images.
        point_cloud_range: of the box code, metres.
        views_per_point: cameras that a point is read in at most, frame by frame; their mean counts.
        quirks: names of SparseBEVHead's.
    """

    def __init__(self, dim: int, num_groups: int, num_points: int, num_levels: int, point_cloud_range: Sequence[float],
                 views_per_point: int = 2, quirks: Collection[str] = ()) -> None:
        super().__init__()
        self.shape, self.num_levels = (num_groups, num_points), num_levels
        self.point_cloud_range, self.views_per_point = tuple(point_cloud_range), views_per_point
        self.quirks = frozenset(quirks)
        self.sampling_offset = nn.Linear(dim, num_groups * num_points * 3)
        self.scale_weights = nn.Linear(dim, num_groups * num_points * num_levels) if num_levels else None
        nn.init.zeros_(self.sampling_offset.weight)
        nn.init.uniform_(self.sampling_offset.bias, -0.5, 0.5)

    def forward(self, boxes: Tensor, query: Tensor, frames: Sequence[PastFrame], gaps_s: Tensor, bev: Tensor | None) -> Tensor:
        """What the points read.

        Args:
            boxes: (B, Q, 10) code of SparseBEVDecoder.
            query: (B, Q, E).
            frames: T of them, newest first, see sampled_frames.frames_of.
            gaps_s: (B, T) seconds before now.
            bev: (B, E, H, W) of the LiDAR; None without.

        Returns:
            (B, Q, G, S * P, E / G), source-major; the S sources are the T frames and then the BEV map.
        """
        offsets = self.offsets(query)
        points_m = self.points(boxes, offsets)
        sources = self.image_points(points_m, boxes, query, frames, gaps_s) if frames else []
        if bev is not None:
            sources.append(self.bev_points(points_m, bev))
        return read_maps(sources)

    def query_looks(self, chosen: Tensor, boxes: Tensor, query: Tensor, frames: Sequence[PastFrame], gaps_s: Tensor,
              bev: Tensor | None) -> Looks:
        """As structures.Looking, in the current frame."""
        del bev
        boxes, query = boxes[:, chosen], query[:, chosen]
        points_m = self.points(boxes, self.offsets(query))
        if not frames:
            return Looks(points_m.flatten(2, 3))
        images = self.image_points(points_m, boxes, query, frames[:1], gaps_s[:, :1])[0]
        return Looks(points_m.flatten(2, 3), images.uv_px.flatten(3, 4), images.seen.flatten(3, 4))

    def offsets(self, query: Tensor) -> Tensor:
        """(B, Q, G * P, 3) in sizes of the box, along its own axes."""
        return self.sampling_offset(query).float().unflatten(-1, (-1, 3))

    @full_precision
    def points(self, boxes: Tensor, offsets: Tensor) -> Tensor:
        """(B, Q, G, P, 3) metres, where the points are now."""
        boxes = boxes.float()
        low, high = (boxes.new_tensor(side) for side in (self.point_cloud_range[:3], self.point_cloud_range[3:]))
        center_m = boxes[..., None, :3] * (high - low) + low
        x, y, z = (boxes[..., None, 3:6].exp() * offsets).unbind(-1)
        yaw = torch.atan2(boxes[..., 6], boxes[..., 7])[..., None]
        turned = torch.stack([x * yaw.cos() - y * yaw.sin(), x * yaw.sin() + y * yaw.cos(), z], dim=-1)
        return (center_m + turned).unflatten(2, self.shape)

    @full_precision
    def moved(self, points_m: Tensor, boxes: Tensor, gaps_s: Tensor) -> Tensor:
        """(B, T, Q, G, P, 3): where the points of (B, Q, G, P, 3) stood at the frames' times."""
        way_m = boxes[:, None, :, 8:10].detach().float() * gaps_s[:, :, None, None]  # (B, T, Q, 2)
        way_m = torch.nn.functional.pad(way_m, (0, 1))
        return points_m[:, None] - way_m[:, :, :, None, None]

    def level_weights(self, query: Tensor) -> Tensor:
        """(B, Q, G, P, L), sum 1 over the levels."""
        assert self.scale_weights is not None
        return self.scale_weights(query).float().unflatten(-1, (*self.shape, self.num_levels)).softmax(-1)

    def image_points(self, points_m: Tensor, boxes: Tensor, query: Tensor, frames: Sequence[PastFrame],
                     gaps_s: Tensor) -> list[MapPoints]:
        """Where every frame's cameras see the points."""
        moved, weights = self.moved(points_m, boxes, gaps_s), self.level_weights(query)
        sources = []
        for t, frame in enumerate(frames):
            self._check_levels(frame.levels)
            sources.append(seen_points(frame, moved[:, t], self._of_frame(weights, t, len(frames)), self.views_per_point,
                                       self.quirks))
        return sources

    def _check_levels(self, levels: Sequence[Tensor]) -> None:
        if len(levels) != self.num_levels:
            raise ValueError(f'pts_bbox_head.transformer.num_levels={self.num_levels}, but {len(levels)} levels are read: '
                             'change it, num_outs of model.img_neck, or pts_bbox_head.inputs.read_levels')
        if not all(level.numel() for level in levels):
            raise ValueError('an image level that is read has no cells in an earlier frame: let model.temporal.levels keep all '
                             'that pts_bbox_head.inputs.read_levels names, or leave it out')
        dim = self.sampling_offset.in_features
        if levels[0].shape[2] != dim:
            raise ValueError(f'pts_bbox_head.transformer.dim={dim}, but the image levels have {levels[0].shape[2]} channels: '
                             'set out_channels of model.img_neck alike')

    def _of_frame(self, weights: Tensor, t: int, num_frames: int) -> Tensor:
        if 'level_weights' not in self.quirks:
            return weights
        groups = self.shape[0]
        return torch.stack([weights[:, :, (t * groups + g) // num_frames] for g in range(groups)], dim=2)

    @full_precision
    def bev_points(self, points_m: Tensor, bev: Tensor) -> MapPoints:
        """Where the BEV map, row y and column x, shows the points; its cells are the pixels."""
        size = bev.shape[-2:]
        cells = []
        for axis in (0, 1):
            low, high = self.point_cloud_range[axis], self.point_cloud_range[3 + axis]
            cells.append((points_m[..., axis] - low) * (size[1 - axis] / (high - low)) - 0.5)
        u, v = cells
        seen = (u >= -0.5) & (u < size[1] - 0.5) & (v >= -0.5) & (v < size[0] - 0.5)
        ones = points_m.new_ones(*points_m.shape[:-1], 1)
        return MapPoints((bev[:, None],), torch.stack(cells, dim=-1)[:, None], seen[:, None], ones, (size[0], size[1]))
