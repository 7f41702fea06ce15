"""Detector, first half: the single-frame stack. In: clips of points and images. Out: features, in each frame's LiDAR frame.

    points -> pts_voxel_encoder -> pts_middle_encoder -> pts_backbone -> pts_neck     bev_lidar (V, C, H, W)
    images -> img_backbone -> img_neck                                                levels [(V, N, C, h, w)]
    fusion_layer(bev_lidar, levels, calibration)                                      bev_fused (V, C, H, W)

V are the clips' frames that are there: all at once, no loop. Every part is optional: without `img_backbone` and `fusion_layer`
it is LiDAR only, without `pts_voxel_encoder` cameras only; a fusion layer that `makes_bev` lifts them into BEV features.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.error import URLError

import torch
from mmdet3d.models.detectors import MVXTwoStageDetector
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.geometry import BEVGrid
from projects.memfusion.heads import scene_head
from projects.memfusion.losses.ranks import tied_to, zero_from, zero_of
from projects.memfusion.structures import Calibration, take_rows

from .encoded_clip import EncodedClip, EncodedImages
from .modes import choose_voxels, evaluating
from .slot_checks import check_fusion, check_lidar_parts, check_single_level
from .unread_levels import parameters_beside


class ClipEncoder(MVXTwoStageDetector):
    """The single-frame stack; TemporalFusionDetector, which documents the slots, is built on it."""

    def __init__(self, grid: dict, fusion_layer: dict | None, **slots: Any) -> None:
        check_single_level(slots['pts_neck'], slots['pts_bbox_head'])
        check_lidar_parts(slots)
        head = slots['pts_bbox_head']
        apart = head is not None and not _wants_configs(MODELS.get(head['type']))
        super().__init__(**{**slots, 'pts_bbox_head': None} if apart else slots)
        if apart:
            self.pts_bbox_head = MODELS.build(head)
        self.grid = BEVGrid(**grid)
        if fusion_layer is not None and not self.with_img_backbone:
            raise ValueError('model.fusion_layer needs images, but there is no model.img_backbone: set one, or '
                             'fusion_layer=None')
        self.fusion_layer: Any = None if fusion_layer is None else MODELS.build(fusion_layer)
        check_fusion(self.fusion_layer, self.with_points)
        self._seen_images: EncodedImages | None = None  # shapes alone: zeros, no camera
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

    @property
    def with_points(self) -> bool:
        """Whether the model looks at LiDAR points; without them it has images alone."""
        return self.with_pts_backbone

    @property
    def with_bev(self) -> bool:
        """Whether frames have BEV features: of the LiDAR, or those that the fusion layer makes of the images alone."""
        return self.with_points or (self.fusion_layer is not None and self.fusion_layer.makes_bev)

    def encode(self, inputs: dict[str, Any], frames: Sequence[bool] | None = None,
               with_points: Sequence[bool] | None = None) -> EncodedClip:
        """Voxels and images of the valid frames -> features; zeros where a frame is padding.

        Args:
            inputs: what ClipDataPreprocessor gives.
            frames: which of the B x T frames to encode, clip-major; None is all. Others count as padding.
            with_points: whose BEV features somebody reads, among the B x T; None is all. Those of others are zeros.
        """
        clips, length = inputs['clip_shape']
        there = [i for i, valid in enumerate(inputs['frame_valid']) if valid]
        rows = there if frames is None else [i for i in there if frames[i]]
        bev, observed, images = (
            self._encode_rows(inputs, there, rows, with_points) if rows else self._encode_nothing(inputs, there))
        if bev is not None and len(rows) < clips * length:
            size = (clips * length, *bev.shape[1:])
            at = torch.tensor(rows, dtype=torch.long).to(bev.device, non_blocking=True)
            bev = bev.new_zeros(size).index_copy(0, at, bev) if rows else bev.new_zeros(size) + bev.sum()
            if observed is not None:
                observed = observed.new_zeros(clips * length, *observed.shape[1:]).index_copy(0, at, observed)
        fused = self._fused_frames(images, rows, clips, length)
        kept = set(rows)
        valid = tuple(tuple(b * length + t in kept for t in range(length)) for b in range(clips))
        return EncodedClip(None if bev is None else bev.view(clips, length, *bev.shape[1:]),
                           None if observed is None else observed.view(clips, length, *observed.shape[1:]), valid, images,
                           blank=None if rows or not self._step_readers() else self._blank_images(images), fused=fused)

    def _encode_rows(self, inputs: dict[str, Any], there: list[int], rows: list[int],
                     with_points: Sequence[bool] | None) -> tuple[Any, Any, EncodedImages | None]:
        """bev (V, C, H, W) and observed (V, 1, H, W), or None without points, and the images of the frames at `rows`."""
        chosen = [there.index(row) for row in rows]
        bev = observed = images = None
        if self.with_points:
            self._check_points(inputs)
            read = [i for i, row in enumerate(rows) if with_points is None or with_points[row]]
            bev, observed = self._encode_lidar(inputs['voxels'], [chosen[i] for i in read], len(there))
            if len(read) < len(rows):
                at = torch.tensor(read, dtype=torch.long).to(bev.device, non_blocking=True)
                bev, observed = (part.new_zeros(len(rows), *part.shape[1:]).index_copy(0, at, part) for part in (bev, observed))
        if self.with_img_backbone:
            images = self.encode_images(inputs, chosen, rows)
            bev, images = self.fuse(bev, images)
        return bev, observed, images

    def _encode_nothing(self, inputs: dict[str, Any], there: list[int]) -> tuple[Any, Any, EncodedImages | None]:
        """The same where no frame is wanted: V is 0. Other processes wait for this one's gradients all the same."""
        device, images, owed = self.data_preprocessor.device, None, None
        if torch.is_grad_enabled():
            neck = self.pts_neck if self.with_pts_neck else None
            parts = (self.pts_voxel_encoder, self.pts_middle_encoder, self.pts_backbone, neck) if self.with_points else ()
            owed = zero_of(*parts, self.fusion_layer)
            if self.with_img_backbone and there:  # so that the losses, which have no frame, are still called
                blank = None
                if self.with_points:
                    blank = torch.zeros(1, self._bev_channels(), *self.grid.bev_shape, device=device)
                with evaluating(self):
                    fused, images = self.fuse(blank, self.encode_images(inputs, [0], there[:1]))
                owed = owed + (zero_from(images.levels) if fused is None else zero_from([fused]))
                images = images.take([])
            else:
                owed = owed + zero_of(*self._image_branch())
        if not self.with_bev:
            return None, None, images
        shape = self.grid.bev_shape
        bev = torch.zeros(0, self._bev_channels(), *shape, device=device)
        observed = torch.zeros(0, 1, *shape, dtype=torch.bool, device=device) if self.with_points else None
        return bev if owed is None else bev + owed, observed, images

    def _blank_images(self, images: EncodedImages | None) -> EncodedImages:
        """One frame that shows nothing, for steps that read images where no frame of the batch is there.

        Of the cameras and shapes seen last; before any was seen, of one camera. It carries the gradients that are owed.
        """
        blank = self._seen_images
        if blank is None:
            size, device = 64, self.data_preprocessor.device
            with evaluating(self), torch.no_grad():
                levels = self.img_backbone(torch.zeros(1, 3, size, size, device=device))
                levels = self.img_neck(levels) if self.with_img_neck else levels
            rig = Calibration.from_matrices(torch.eye(3)[None, None], torch.eye(4)[None, None], torch.tensor([[[size, size]]]),
                                            cam_valid=torch.zeros(1, 1, dtype=torch.bool))
            blank = EncodedImages([torch.zeros_like(level)[:, None] for level in levels], rig.to(device), (-1,))
        if not torch.is_grad_enabled():
            return blank
        branch = [part for part in self._image_branch() if part is not None]
        owed = images.levels if images is not None else [p for part in branch for p in part.parameters()]
        return self._tied(blank, owed)

    def _encode_lidar(self, voxels: dict[str, Tensor], chosen: list[int], num_frames: int) -> tuple[Tensor, Tensor]:
        """bev (V, C, H, W) and observed (V, 1, H, W) of the V frames at `chosen`, of `num_frames` that have voxels."""
        if not chosen:  # nothing is read, but other processes wait for this one's gradients
            with evaluating(self):
                bev, observed = self._encode_lidar(voxels, [0], num_frames)
            return bev[:0], observed[:0]
        if len(chosen) < num_frames:
            voxels = choose_voxels(voxels, chosen, num_frames)
        return self.encode_points(voxels, len(chosen)), self._observed_cells(voxels, len(chosen))

    def _check_points(self, inputs: dict[str, Any]) -> None:
        if 'voxels' not in inputs:
            raise ValueError('model.pts_voxel_encoder is set, but the frames have no points: put LoadLidarPoints into the '
                             'pipeline, use_lidar=True into the modality of the data set and voxel=True into '
                             'model.data_preprocessor, or leave out the pts_ encoders')

    # -- points -------------------------------------------------------------------------------------------------------
    def encode_points(self, voxels: dict[str, Tensor], num_frames: int) -> Tensor:
        """Voxels of `num_frames` frames -> (num_frames, C, H, W)."""
        # mmdet3d takes the batch size from the last voxel, which is wrong when the last cloud is empty.
        if voxels['coors'].shape[0]:  # not len(), which an exported graph would keep as a number
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

    def _fused_frames(self, images: EncodedImages | None, rows: Sequence[int], clips: int, length: int) -> Tensor | None:
        """(B, T) bool: frames whose cameras wrote into the BEV; None without a fusion layer."""
        if self.fusion_layer is None:
            return None
        fused = torch.zeros(clips * length, dtype=torch.bool, device=self.data_preprocessor.device)
        if rows and images is not None:
            at = torch.tensor(rows, dtype=torch.long).to(fused.device, non_blocking=True)
            fused = fused.index_copy(0, at, images.calibration.cam_valid.any(1))
        return fused.view(clips, length)

    def _bev_channels(self) -> int:
        """C of the BEV features, as the first part that reads them declares it."""
        head = scene_head(self.pts_bbox_head) if self.with_pts_bbox else None
        declared = [part.bev_channels for part in (self.fusion_layer, head) if part is not None and part.bev_channels]
        if not declared:
            raise ValueError('nothing in the model says how wide its BEV features are: give the head bev_channels')
        return declared[0]

    # -- images -------------------------------------------------------------------------------------------------------
    def encode_images(self, inputs: dict[str, Any], chosen: Sequence[int], rows: Sequence[int]) -> EncodedImages:
        """The images of the frames at `chosen`, positions among the valid ones; `rows`, those in the clips, is kept."""
        if 'imgs' not in inputs:
            raise ValueError('model.img_backbone is set, but the frames have no images: put LoadMultiViewImages into the '
                             'pipeline and use_camera=True into the modality of the data set, or set model.img_backbone=None')
        imgs, calibration = inputs['imgs'], inputs['calibration']
        if list(chosen) != list(range(len(imgs))):
            imgs, calibration = take_rows(imgs, chosen), calibration.select(list(chosen))
        shown = [i for i, there in enumerate(calibration.cameras_there) if there]
        if shown:
            # A missing camera would spoil BatchNorm statistics.
            levels = self.img_backbone(take_rows(imgs.flatten(0, 1), shown))
            levels = list(self.img_neck(levels) if self.with_img_neck else levels)
        else:  # nothing is learned, but other processes wait for this one's gradients
            with evaluating(self):
                levels = self.img_backbone(inputs['imgs'][:1, 0])
                levels = [level[:0] for level in (self.img_neck(levels) if self.with_img_neck else levels)]
        frames, cameras = imgs.shape[:2]
        if len(shown) < frames * cameras:
            at = torch.tensor(shown, dtype=torch.long).to(imgs.device, non_blocking=True)
            levels = [level.new_zeros(frames * cameras, *level.shape[1:]).index_copy(0, at, level) for level in levels]
        images = EncodedImages([level.unflatten(0, (frames, cameras)) for level in levels], calibration, tuple(rows))
        if self._step_readers():
            self._seen_images = images.blank()
        return images

    def fuse(self, bev: Tensor | None, images: EncodedImages) -> tuple[Tensor | None, EncodedImages]:
        """bev (V, C, H, W) with what the images show, and the images with what the fusion layer keeps for its loss."""
        if self.fusion_layer is not None:
            fused = self.fusion_layer.fuse(bev, images.levels, images.calibration)
            bev, images = fused.bev, replace(images, aux=fused.aux)
        if torch.is_grad_enabled():  # a level that nobody reads owes distributed training its gradients too
            owed = self._owed(images.levels)
            if bev is not None:
                return tied_to(bev, owed), images
            images = self._tied(images, owed)
        return bev, images

    def _tied(self, images: EncodedImages, owed: Sequence[Tensor]) -> EncodedImages:
        """The images, whose first level that is read also owes gradients to `owed`."""
        through = min(self._read(len(images.levels)), default=0)
        levels = list(images.levels)
        levels[through] = tied_to(levels[through], owed)
        return replace(images, levels=levels)

    def _owed(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Tensors that together depend on all parameters of the image branch, and on no feature that nobody reads.

        Through the levels that are read, since nothing in them may concern this batch: no cell sees a camera. Parameters that
        only other levels depend on by themselves: those features may be infinite, and 0 times that is NaN. Not all parameters
        by themselves: those under a checkpoint that starts a backward pass of its own would have their gradient twice.
        """
        read = self._read(len(levels))
        if len(read) == len(levels):
            return list(levels)
        if read not in self._beside:
            backbone, neck = self._image_branch()
            self._beside[read] = parameters_beside(backbone, neck, read)
        return [*(levels[level] for level in read), *(self.get_parameter(name) for name in self._beside[read])]

    def _read(self, count: int) -> frozenset[int]:
        """Positions of those of `count` levels that somebody reads."""
        asked: set[int] = set()
        for reader in self._readers():
            levels = range(count) if reader.read_levels is None else reader.read_levels
            if not all(-count <= level < count for level in levels):
                raise ValueError(f'{type(reader).__name__} reads the image levels {list(levels)}, but img_neck gives {count} '
                                 "levels (0 is the first): change its setting 'level', 'levels' or 'read_levels'")
            asked.update(level % count for level in levels)
        return frozenset(asked)

    def _readers(self) -> Iterator[Any]:
        """Whoever reads image levels, and says which by `read_levels`."""
        if self.fusion_layer is not None:
            yield self.fusion_layer

    def _step_readers(self) -> list[Any]:
        """What reads image features in a step; none in this half of the detector."""
        return []

    def _image_branch(self) -> tuple[Any, Any]:
        return (self.img_backbone if self.with_img_backbone else None, self.img_neck if self.with_img_neck else None)


def _wants_configs(head: Any) -> bool:
    """Whether a head takes train_cfg and test_cfg, which mmdet3d's detector gives to every head."""
    taken = inspect.signature(head).parameters.values()
    return any(parameter.name == 'train_cfg' or parameter.kind is parameter.VAR_KEYWORD for parameter in taken)
