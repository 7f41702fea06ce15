"""Middle encoder. In: pillar features (M, C), coordinates (M, 4). Out: BEV (B, C, H, W), y along H. mmdet3d's, in one call."""

from __future__ import annotations

from mmdet3d.models.middle_encoders import PointPillarsScatter
from mmdet3d.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class BatchedPillarsScatter(PointPillarsScatter):
    """mmdet3d's PointPillarsScatter without its loop over the batch, whose masks make the host wait twice a frame.

    It has no parameters and writes the same numbers, so checkpoints and configs of either serve the other.
    """

    def forward_batch(self, voxel_features: Tensor, coors: Tensor, batch_size: int) -> Tensor:
        """voxel_features (M, C), coors (M, 4) int as batch, z, y, x -> (batch_size, C, H, W)."""
        frame, _, row, column = coors.long().unbind(dim=1)
        canvas = voxel_features.new_zeros(batch_size, self.in_channels, self.ny * self.nx)
        canvas[frame, :, row * self.nx + column] = voxel_features
        return canvas.view(batch_size, self.in_channels, self.ny, self.nx)
