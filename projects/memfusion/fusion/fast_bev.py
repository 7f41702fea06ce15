"""FastBEV fusion. In: BEV or none, image features and the rig. Out: BEV with the pixel of each voxel; LiDAR frame.

    values    every image level through a matrix for each height
    table     each voxel's feature cell: made once for a rig that does not change; no attention, no depth
    spread    what the voxels above a cell read, through a 3x3 convolution
    mix       with the LiDAR BEV beside it, through two matrices; the result is added to the LiDAR BEV, or is the BEV
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import ClassVar

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.rig_cache import RigCache
from projects.geometry import full_precision
from projects.memfusion.structures import Calibration

from .bev_queries import check_bev_shape, check_query_init
from .fusion_layer import FusionLayer, FusionOutput
from .voxel_table import VoxelTable, check_overlap, voxel_table


@MODELS.register_module()
class FastBEVFusion(FusionLayer):
    """The cheapest geometric fusion (Fast-BEV, Li et al., TPAMI 2024): voxels look their pixel up. With a LiDAR BEV it starts
    as the identity, and is the identity wherever no valid camera sees a cell's voxels.

    Args:
        bev_channels, img_channels, point_cloud_range, strides, levels: as in FusionLayer; what several levels say is added up.
        bev_shape: (H, W) of the BEV; the detector fills it in.
        query_init: as in the other layers that write BEV features: 'lidar' adds to the LiDAR's, 'learned' makes them of the
            cameras alone (nothing is learned for a cell here: one that no camera sees is 0).
        heights_m: Z heights of the voxels above a cell.
        channels: of what a voxel reads, and of everything up to the output.
        overlap: where several cameras see a voxel: 'mean' of all, or the 'first' that sees it in the order of the rig.
    """

    grid_keys: ClassVar[Mapping[str, str]] = dict(point_cloud_range='point_cloud_range', bev_shape='bev_shape')

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        bev_shape: Sequence[int],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        query_init: str = 'lidar',
        heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5),
        channels: int = 64,
        overlap: str = 'mean',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels, init_cfg)
        check_query_init(query_init)
        check_overlap(overlap)
        if not len(heights_m):
            raise ValueError('fusion_layer.heights_m is empty: name at least one height')
        self.makes_bev, self.bev_shape = query_init == 'learned', (bev_shape[0], bev_shape[1])
        self.heights_m, self.overlap = tuple(float(height) for height in heights_m), overlap
        self.values = nn.ModuleList(nn.Conv2d(img_channels, len(self.heights_m) * channels, 1) for _ in self.strides)
        self.spread = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix = nn.Linear(channels if self.makes_bev else channels + bev_channels, channels)
        self.output = nn.Linear(channels, bev_channels, bias=False)
        if not self.makes_bev:
            nn.init.zeros_(self.output.weight)
        self.cache = RigCache()

    def fuse_levels(self, bev_lidar: Tensor | None, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As FusionLayer.fuse_levels."""
        check_bev_shape(bev_lidar, self.bev_shape)
        tables = self.tables(calibration, maps)
        cells = reduce(torch.add, (table.read(layer(level.flatten(0, 1)).unflatten(0, level.shape[:2]))
                                   for table, layer, level in zip(tables, self.values, maps)))  # (V, H * W, channels)
        camera = self.spread(cells.relu().transpose(1, 2).unflatten(2, self.bev_shape)).relu().flatten(2)
        # Products, and no copy of both side by side: a 1x1 convolution would first copy the whole BEV into another layout.
        from_camera, from_lidar = self.mix.weight.split([len(self.mix.weight), self.mix.in_features - len(self.mix.weight)], 1)
        mixed = from_camera @ camera + self.mix.bias[:, None]
        if bev_lidar is not None:
            mixed = mixed + from_lidar @ bev_lidar.flatten(2)
        mixed = mixed.relu() * tables[0].seen[:, None]
        if bev_lidar is None:
            return FusionOutput((self.output.weight @ mixed).unflatten(2, self.bev_shape), {})
        return FusionOutput(_added(bev_lidar, self.output.weight, mixed), {})

    def tables(self, calibration: Calibration, maps: Sequence[Tensor]) -> tuple[VoxelTable, ...]:
        """Of each level, what the voxels of every frame read; those of the last rig are kept in eval mode."""
        shapes = tuple((level.shape[-2], level.shape[-1]) for level in maps)

        def make() -> tuple[VoxelTable, ...]:
            return tuple(voxel_table(calibration, self.bev_shape, self.heights_m, self.point_cloud_range, shape, stride,
                                     self.overlap) for shape, stride in zip(shapes, self.strides))

        return self.cache.get(calibration.views(), make, self, shapes, (calibration.img_hw, calibration.seen_px))


@full_precision  # the BEV is not to lose digits where nothing is added
def _added(bev: Tensor, weight: Tensor, mixed: Tensor) -> Tensor:
    """bev (V, C, H, W) + weight (C, D) @ mixed (V, D, H * W)."""
    update = torch.baddbmm(bev.flatten(2), weight.to(bev.dtype).expand(len(bev), -1, -1), mixed.to(bev.dtype))
    return update.unflatten(2, bev.shape[-2:])
