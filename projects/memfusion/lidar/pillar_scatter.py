"""Middle encoder. In: pillar features (M, C), coordinates (M, 4). Out: BEV (V, C, H, W). mmdet3d's, all frames at once."""

from __future__ import annotations

from mmdet3d.models.middle_encoders import PointPillarsScatter
from mmdet3d.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class BatchedPillarsScatter(PointPillarsScatter):
    """mmdet3d's PointPillarsScatter, which picks each frame's pillars by a mask, so that a GPU is waited for twice a frame."""

    def forward_batch(self, voxel_features: Tensor, coors: Tensor, batch_size: int) -> Tensor:
        """voxel_features (M, C), coors (M, 4) integers as frame, z, y, x, each cell at most once -> (batch_size, C, H, W)."""
        canvas = voxel_features.new_zeros(batch_size, self.in_channels, self.ny * self.nx)
        frame, _, row, column = coors.long().unbind(dim=1)
        canvas[frame, :, row * self.nx + column] = voxel_features
        return canvas.view(batch_size, self.in_channels, self.ny, self.nx)
