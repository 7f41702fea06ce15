"""FastBEV fusion. In: BEV, image features and the rig. Out: BEV with the one pixel that each voxel projects to; LiDAR frame.

    values    1x1 convolution of every image level
    table     each voxel's feature cell: computed once for a rig that does not change, no attention, no depth
    squeeze   the voxels above a cell, stacked into channels, through a 1x1 convolution
    mix       beside the LiDAR BEV through a 3x3 convolution; the result is added to the LiDAR BEV
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.memfusion.structures import Calibration

from .fusion_layer import FusionLayer, FusionOutput
from .voxel_table import VoxelTable, check_overlap, voxel_centres, voxel_table


@MODELS.register_module()
class FastBEVFusion(FusionLayer):
    """The cheapest geometric fusion (Fast-BEV, Li et al., TPAMI 2024): voxels look their pixel up. With a LiDAR BEV it starts
    as the identity, and is the identity wherever no valid camera sees a cell's voxels.

    Args:
        bev_channels, img_channels, point_cloud_range, strides, levels: as in FusionLayer; what several levels say is added up.
        heights_m: Z heights of the voxels above a cell.
        voxel_channels: that each voxel reads.
        hidden_channels: of what is made of a cell's voxels.
        overlap: where several cameras see a voxel: 'mean' of all, or the 'first' that sees it in the order of the rig.
    """

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5),
        voxel_channels: int = 64,
        hidden_channels: int = 128,
        overlap: str = 'mean',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels, init_cfg)
        check_overlap(overlap)
        if not len(heights_m):
            raise ValueError('fusion_layer.heights_m is empty: name at least one height')
        self.heights_m, self.overlap = tuple(float(height) for height in heights_m), overlap
        self.values = nn.ModuleList(nn.Conv2d(img_channels, voxel_channels, 1) for _ in self.strides)
        self.squeeze = nn.Sequential(nn.Conv2d(len(self.heights_m) * voxel_channels, hidden_channels, 1), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(bev_channels + hidden_channels, hidden_channels, 3, padding=1), nn.ReLU())
        self.output = nn.Conv2d(hidden_channels, bev_channels, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.get_parameter('bias'))

    def fuse_levels(self, bev_lidar: Tensor, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As FusionLayer.fuse_levels."""
        shape = bev_lidar.shape[-2:]
        tables = self.tables(calibration, maps, shape)
        voxels = torch.stack([table.read(layer(level.flatten(0, 1)).unflatten(0, level.shape[:2]))
                              for table, layer, level in zip(tables, self.values, maps)]).sum(0)  # (V, H * W * Z, C)
        stacked = voxels.view(len(voxels), *shape, -1).permute(0, 3, 1, 2)
        seen = tables[0].seen.view(len(voxels), 1, *shape, -1).any(-1)
        camera = self.squeeze(stacked)
        update = self.output(self.mix(torch.cat([camera, bev_lidar.to(camera.dtype)], dim=1)))
        return FusionOutput(bev_lidar + (update * seen).to(bev_lidar.dtype), {})

    def tables(self, calibration: Calibration, maps: Sequence[Tensor], shape: Sequence[int]) -> tuple[VoxelTable, ...]:
        """Of each level, what the H x W x Z voxels of every frame read."""
        points = voxel_centres(shape, self.heights_m, self.point_cloud_range, calibration.bev_aug.device)
        return tuple(voxel_table(points, calibration, level.shape, stride, self.overlap)
                     for level, stride in zip(maps, self.strides))
