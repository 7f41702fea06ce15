"""Detector, first half: the single-frame stack. In: clips of points and images. Out: BEV features, in each frame's LiDAR frame.

    points -> pts_voxel_encoder -> pts_middle_encoder -> pts_backbone -> pts_neck     bev_lidar (V, C, H, W)
    images -> img_backbone -> img_neck                                                levels [(V, N, C, h, w)]
    fusion_layer(bev_lidar, levels, calibration)                                      bev_fused (V, C, H, W)

V are the clips' frames that are there: all at once, no loop. Without `img_backbone` and `fusion_layer` it is LiDAR only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError

import torch
from mmdet3d.models.detectors import MVXTwoStageDetector
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.geometry import BEVGrid
from projects.memfusion.losses.ranks import zero_from, zero_of
from projects.memfusion.structures import Calibration

from .modes import choose_voxels, evaluating
from .slot_checks import check_single_level
from .unread_levels import parameters_beside


@dataclass(frozen=True)
class EncodedImages:
    """Image features of V frames.

    Attributes:
        levels: (V, N, C, h, w) each; zeros where a camera is missing.
        calibration: of the V frames.
        position: (V,) where the frames stand among the B x T, clip-major.
        aux: what the fusion layer keeps for its loss; None without one.
    """

    levels: list[Tensor]
    calibration: Calibration
    position: Tensor
    aux: Any = None

    def select(self, rows: Tensor) -> EncodedImages:
        """The frames where `rows` (V,) bool is True."""
        aux = None if self.aux is None else {name: value[rows] for name, value in self.aux.items()}
        return EncodedImages([level[rows] for level in self.levels], self.calibration.select(rows), self.position[rows], aux)


@dataclass(frozen=True)
class EncodedClip:
    """What the single-frame stack makes of B clips: bev (B, T, C, H, W), observed (B, T, 1, H, W) bool, valid (B, T) bool."""

    bev: Tensor
    observed: Tensor
    valid: Tensor
    images: EncodedImages | None = None

    def after(self, before: EncodedClip, context: int) -> EncodedClip:
        """This clip with its first `context` frames taken from `before`; the images stay those encoded here."""
        def join(name: str) -> Tensor:
            return torch.cat([getattr(before, name)[:, :context], getattr(self, name)[:, context:]], dim=1)

        return EncodedClip(join('bev'), join('observed'), join('valid'), self.images)


class ClipEncoder(MVXTwoStageDetector):
    """The single-frame stack; TemporalFusionDetector, which documents the slots, is built on it."""

    def __init__(self, grid: dict, fusion_layer: dict | None, **slots: Any) -> None:
        check_single_level(slots['pts_neck'], slots['pts_bbox_head'])
        super().__init__(**slots)
        self.grid = BEVGrid(**grid)
        if fusion_layer is not None and not self.with_img_backbone:
            raise ValueError('model.fusion_layer needs images, but there is no model.img_backbone: set one, or '
                             'fusion_layer=None')
        self.fusion_layer: Any = None if fusion_layer is None else MODELS.build(fusion_layer)
        self._beside: dict[frozenset[int], tuple[str, ...]] = {}  # names of parameters, by the levels that are read

    def init_weights(self) -> None:
        """As usual; a checkpoint that cannot be had is an error that says which and what to do."""
        try:
            super().init_weights()
        except (URLError, ConnectionError, FileNotFoundError, ImportError) as error:
            init_cfg = self.img_backbone.init_cfg if self.with_img_backbone else None
            if not isinstance(init_cfg, Mapping) or 'checkpoint' not in init_cfg:
                raise  # another part's
            raise ValueError(
                f'cannot get pretrained weights ({init_cfg["checkpoint"]}): {error}. Fetch the '
                'file elsewhere and set model.img_backbone.init_cfg.checkpoint to its path, or start from scratch with '
                'model.img_backbone.init_cfg=None') from error

    def encode(self, inputs: dict[str, Any], frames: Sequence[bool] | None = None) -> EncodedClip:
        """Voxels and images of the valid frames -> BEV features; zeros where a frame is padding.

        Args:
            inputs: what ClipDataPreprocessor gives.
            frames: which of the B x T frames to encode, clip-major; None is all. Others count as padding.
        """
        clips, length = inputs['clip_shape']
        device = self.data_preprocessor.device
        valid = torch.tensor(inputs['frame_valid'], device=device)
        wanted = valid if frames is None else valid & torch.tensor(frames, device=device)
        size = (clips * length, self._bev_channels(), *self.grid.bev_shape)
        observed = torch.zeros(clips * length, 1, *self.grid.bev_shape, dtype=torch.bool, device=device)
        images = None
        if wanted.any():
            voxels = inputs['voxels'] if frames is None else choose_voxels(inputs['voxels'], wanted[valid])
            bev = self.encode_points(voxels, int(wanted.sum()))
            observed[wanted] = self._observed_cells(voxels, int(wanted.sum()))
            if self.with_img_backbone:
                images = self.encode_images(inputs, wanted[valid], wanted.nonzero()[:, 0])
                bev, images = self.fuse(bev, images)
            if not wanted.all():
                bev = bev.new_zeros(size).index_copy(0, wanted.nonzero()[:, 0], bev)
        else:
            bev = torch.zeros(size, device=device)
            if torch.is_grad_enabled():  # every frame was dropped, but other processes wait for this one's gradients
                neck = self.pts_neck if self.with_pts_neck else None
                bev = bev + zero_of(self.pts_voxel_encoder, self.pts_middle_encoder, self.pts_backbone, neck, self.fusion_layer)
                if self.with_img_backbone and valid.any():  # so that the losses, which have no frame, are still called
                    with evaluating(self):
                        some = self.encode_images(inputs, (valid.cumsum(0) == 1)[valid], valid.nonzero()[:1, 0])
                        fused, images = self.fuse(bev[:1], some)
                    bev = bev + zero_from([fused])
                    images = images.select(torch.zeros_like(images.position, dtype=torch.bool))
                else:
                    bev = bev + zero_of(*self._image_branch())
        shape = (clips, length)
        return EncodedClip(bev.view(*shape, *bev.shape[1:]), observed.view(*shape, *observed.shape[1:]), wanted.view(shape),
                           images)

    # -- points -------------------------------------------------------------------------------------------------------
    def encode_points(self, voxels: dict[str, Tensor], num_frames: int) -> Tensor:
        """Voxels of `num_frames` frames -> (num_frames, C, H, W)."""
        # mmdet3d takes the batch size from the last voxel, which is wrong when the last cloud is empty.
        if len(voxels['coors']):
            features = self.pts_voxel_encoder(voxels['voxels'], voxels['num_points'], voxels['coors'], None, None)
        else:
            features = voxels['voxels'].new_zeros(0, self.pts_middle_encoder.in_channels) + zero_of(self.pts_voxel_encoder)
        levels = self.pts_backbone(self.pts_middle_encoder(features, voxels['coors'], num_frames))
        if self.with_pts_neck:
            levels = self.pts_neck(levels)
        if len(levels) != 1 or levels[0].shape[-2:] != self.grid.bev_shape:
            part = self.pts_neck if self.with_pts_neck else self.pts_backbone
            raise ValueError(f'{type(part).__name__} gives levels of {[tuple(level.shape[-2:]) for level in levels]} cells, '
                             f'but model.grid makes {self.grid.bev_shape}: one level of that size is needed. Several levels: '
                             'put them into one map with model.pts_neck=dict(type=SECONDFPN, ...); another size: check '
                             'upsample_strides of model.pts_neck, layer_strides of model.pts_backbone and '
                             'model.grid.out_size_factor')
        return levels[0]

    def _observed_cells(self, voxels: dict[str, Tensor], num_frames: int) -> Tensor:
        """(num_frames, 1, H, W) bool: cells that hold a point."""
        observed = torch.zeros(num_frames, 1, *self.grid.bev_shape, dtype=torch.bool, device=voxels['coors'].device)
        frame, _, row, column = voxels['coors'].long().unbind(dim=1)
        stride = self.grid.out_size_factor
        observed[frame, 0, row // stride, column // stride] = True
        return observed

    def _bev_channels(self) -> int:
        return next(part for part in self.pts_bbox_head.modules() if isinstance(part, nn.Conv2d)).in_channels

    # -- images -------------------------------------------------------------------------------------------------------
    def encode_images(self, inputs: dict[str, Any], chosen: Tensor, position: Tensor) -> EncodedImages:
        """The images of the frames where `chosen` (valid frames,) bool is True; `position` (V,) is kept with them."""
        if 'imgs' not in inputs:
            raise ValueError('model.img_backbone is set, but the frames have no images: put LoadMultiViewImages into the '
                             'pipeline and use_camera=True into the modality of the data set, or set model.img_backbone=None')
        imgs, calibration = inputs['imgs'][chosen], inputs['calibration'].select(chosen)
        there = calibration.cam_valid
        if there.any():
            levels = self.img_backbone(imgs[there])  # a missing camera would spoil BatchNorm statistics
            levels = list(self.img_neck(levels) if self.with_img_neck else levels)
        else:  # nothing is learned, but other processes wait for this one's gradients
            with evaluating(self):
                levels = self.img_backbone(inputs['imgs'][:1, 0])
                levels = [level[:0] for level in (self.img_neck(levels) if self.with_img_neck else levels)]
        spread = [level.new_zeros(*there.shape, *level.shape[1:]).index_put((there,), level) for level in levels]
        return EncodedImages(spread, calibration, position)

    def fuse(self, bev: Tensor, images: EncodedImages) -> tuple[Tensor, EncodedImages]:
        """bev (V, C, H, W) with what the images show, and the images with what the fusion layer keeps for its loss."""
        if torch.is_grad_enabled():  # a level that nobody reads owes distributed training its gradients too
            bev = bev + self._nothing_of(images.levels)
        if self.fusion_layer is None:
            return bev, images
        fused = self.fusion_layer.fuse(bev, images.levels, images.calibration)
        return fused.bev, EncodedImages(images.levels, images.calibration, images.position, fused.aux)

    def _nothing_of(self, levels: Sequence[Tensor]) -> Tensor | float:
        """A scalar 0 that depends on all parameters of the image branch, and on no feature that nobody reads.

        Through the levels that are read, since nothing in them may concern this batch: no cell sees a camera. Parameters that
        only other levels depend on by themselves: those features may be infinite, and 0 times that is NaN. Not all parameters
        by themselves: those under a checkpoint that starts a backward pass of its own would have their gradient twice.
        """
        read = frozenset(level % len(levels) for reader in self._readers()
                         for level in getattr(reader, 'read_levels', range(len(levels))))
        if len(read) == len(levels):
            return zero_from(levels)
        if read not in self._beside:
            backbone, neck = self._image_branch()
            self._beside[read] = parameters_beside(backbone, neck, read)
        return zero_from(levels[level] for level in read) + zero_from(self.get_parameter(name) for name in self._beside[read])

    def _readers(self) -> Iterator[Any]:
        """Whoever reads image levels; one without `read_levels` may read them all."""
        if self.fusion_layer is not None:
            yield self.fusion_layer

    def _image_branch(self) -> tuple[Any, Any]:
        return (self.img_backbone if self.with_img_backbone else None, self.img_neck if self.with_img_neck else None)
