"""Fusion contract. In: bev_lidar (V, C, H, W), image features and the rig. Out: BEV with what the cameras saw, same frame.

A layer that `makes_bev` is given no bev_lidar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmengine.model import BaseModule
from torch import Tensor

from projects.memfusion.losses.ranks import tied_to
from projects.memfusion.structures import Calibration

_MOST_PADDING_PX = 32


@dataclass(frozen=True)
class FusionOutput:
    """bev (V, C, H, W), and aux: what the losses and the pictures need, by name."""

    bev: Tensor
    aux: dict[str, Tensor]


@dataclass(frozen=True)
class FusionTruth:
    """heatmap (V, 1, H, W) of box centres, 1 at a centre; noise (V, N, 4, 4), the rigid error that was put into the rig."""

    heatmap: Tensor
    noise: Tensor


class FusionLayer(BaseModule):
    """Base of the modules for the detector's slot `fusion_layer`.

    Args:
        bev_channels: C of bev_lidar.
        img_channels: channels of every image level.
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) of the BEV, metres; the detector fills it in.
        strides: network pixels per feature cell, of each level that is used.
        levels: positions of those levels in img_feats; None takes the first ones.

    Raises:
        ValueError: where strides and levels do not match.
    """

    grid_keys: ClassVar[Mapping[str, str]] = dict(point_cloud_range='point_cloud_range')
    """Settings that `model.grid` fills in, and what of the grid goes there."""

    makes_bev = False
    """Whether it makes BEV features of the cameras alone; else it needs those of the LiDAR."""

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.bev_channels, self.img_channels = bev_channels, img_channels
        self.point_cloud_range = tuple(float(value) for value in point_cloud_range)
        self.strides = tuple(strides)
        self.levels = tuple(range(len(self.strides)) if levels is None else levels)
        if len(self.levels) != len(self.strides) or not self.strides:
            raise ValueError(f'fusion_layer.strides {self.strides} must name one stride for each of the levels {self.levels}')

    @property
    def read_levels(self) -> tuple[int, ...]:
        """Positions in img_feats of the levels whose features have a say."""
        return self.levels

    def forward(self, bev_lidar: Tensor | None, img_feats: Sequence[Tensor], calibration: Calibration) -> Tensor:
        """The fused BEV (V, C, H, W); see fuse."""
        return self.fuse(bev_lidar, img_feats, calibration).bev

    def fuse(self, bev_lidar: Tensor | None, img_feats: Sequence[Tensor], calibration: Calibration) -> FusionOutput:
        """Fuses V frames of N cameras, at least one of each.

        Args:
            bev_lidar: (V, C, H, W), x along W and y along H; None where the layer `makes_bev`.
            img_feats: levels of (V, N, Ci, h, w).
            calibration: of V frames; cameras that are not valid have no effect.

        Raises:
            ValueError: where the shapes contradict each other or the config.
        """
        output = self.fuse_levels(bev_lidar, self._used_levels(bev_lidar, img_feats, calibration), calibration)
        if not self.training:
            return output
        return FusionOutput(tied_to(output.bev, self.parameters()), output.aux)

    def fuse_levels(self, bev_lidar: Any, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As fuse, with only the levels that are used; features of cameras that are not valid are 0."""
        raise NotImplementedError

    def loss(self, aux: dict[str, Tensor], truth: FusionTruth) -> dict[str, Tensor]:
        """Losses of the parts that are told the truth; none in the base class."""
        del aux, truth
        return {}

    def _used_levels(self, bev_lidar: Tensor | None, img_feats: Sequence[Tensor], calibration: Calibration) -> list[Tensor]:
        if absent := [level for level in self.levels if not -len(img_feats) <= level < len(img_feats)]:
            raise ValueError(f'fusion_layer.levels {self.levels} has {absent}, but img_neck gives {len(img_feats)} levels: 0 '
                             'is the first, -1 the last')
        if not isinstance(calibration, Calibration):
            raise ValueError(f'fusion_layer needs the Calibration of the images, got {type(calibration).__name__}: it is made '
                             'in LoadMultiViewImages, ClipDataPreprocessor hands it on')
        frames, cameras = calibration.cam_valid.shape
        if not frames or not cameras:
            raise ValueError(f'fusion_layer needs at least one frame and one camera, got {frames} frames of {cameras} cameras: '
                             'mask cameras that are not there (cam_valid), or leave model.fusion_layer out')
        if (bev_lidar is None) != self.makes_bev:
            raise ValueError(f'{type(self).__name__} ' + (
                'makes BEV features of the cameras alone, but was given those of the LiDAR' if self.makes_bev
                else 'changes the BEV features of the LiDAR, but was given none'))
        if bev_lidar is not None and bev_lidar.shape[:2] != (frames, self.bev_channels):
            raise ValueError(f'bev_lidar is {tuple(bev_lidar.shape)}, expected {frames} frames (as the calibration has) of '
                             f'fusion_layer.bev_channels={self.bev_channels}')
        maps = [img_feats[level] for level in self.levels]
        for level, feature_map in zip(self.levels, maps):
            if feature_map.shape[:3] != (frames, cameras, self.img_channels):
                raise ValueError(f'img_feats[{level}] is {tuple(feature_map.shape)}, expected {frames} frames of cameras '
                                 f'{calibration.cam_names} of fusion_layer.img_channels={self.img_channels}')
        largest_hw = calibration.facts.largest_hw if any(calibration.cameras_there) else (0, 0)
        for level, stride, feature_map in zip(self.levels, self.strides, maps):
            _check_stride(level, stride, feature_map, largest_hw)
        missing = ~calibration.cam_valid[..., None, None, None]
        return [feature_map.masked_fill(missing, 0) for feature_map in maps]


def _check_stride(level: int, stride: int, feature_map: Tensor, largest_hw: tuple[int, int]) -> None:
    """ValueError unless the map, at this stride, covers the images and what padding may add; none is no image."""
    height, width = largest_hw
    if not height:
        return
    covered_h, covered_w = feature_map.shape[-2] * stride, feature_map.shape[-1] * stride
    too_small = covered_h <= height - stride or covered_w <= width - stride
    too_large = all(covered >= 1.9 * size and covered - size >= _MOST_PADDING_PX
                    for covered, size in ((covered_h, height), (covered_w, width)))
    if too_small or too_large:
        raise ValueError(f'img_feats[{level}] has {tuple(feature_map.shape[-2:])} cells, at stride {stride} an image of '
                         f'{covered_h} x {covered_w} pixels, but the calibration speaks of {height} x {width}: set '
                         'fusion_layer.strides and levels to those of img_neck')
