"""Heads. In: image features of some levels (V, N, C, h, w). Out: a class per network pixel of every camera; losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from projects.memfusion.losses.ranks import mean_over_ranks
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.image_labels import IGNORED, ImageLabels

from .image_center_targets import cells_inside, seen_hw
from .task_head import TaskHead, camera_labels, pick_level

MASKED = (0, 0)
"""Size in pixels of what a masked camera shows."""


@MODELS.register_module()
class ImageSegHead(TaskHead):
    """Semantic segmentation of every camera: levels to one width, summed at the finest, logits enlarged to pixels.

    Args:
        in_channels: C of the features, the same on all levels.
        num_classes: K, at most 255; labels are 0..K-1 and 255 for unknown.
        stride: network pixels per cell of the finest level.
        levels: which of the img_feats, the finest first.
        channels: width of the head.
        class_weights: K weights of the cross-entropy; None is 1 each.
        norm_cfg: norm of the convolutions, None or one that looks at each image by itself, e.g. dict(type='GN',
            num_groups=8): missing cameras would enter a batch norm.
        loss_weight: multiplies the loss.
    """

    needs = 'img'
    field = 'pred_img_sem_seg'
    class_weights: Tensor

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        stride: int,
        levels: Sequence[int] = (0,),
        channels: int = 64,
        class_weights: Sequence[float] | None = None,
        norm_cfg: dict | None = None,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        if not 1 <= num_classes <= IGNORED:
            raise ValueError(f'ImageSegHead.num_classes must be 1 to {IGNORED}, got {num_classes}')
        if not levels or len(set(levels)) != len(levels):
            raise ValueError(f'ImageSegHead.levels must name at least one level, each once, got {tuple(levels)}')
        weights = [1.0] * num_classes if class_weights is None else [float(w) for w in class_weights]
        if len(weights) != num_classes or min(weights) < 0:
            raise ValueError(f'ImageSegHead.class_weights must be {num_classes} weights of at least 0, got {weights}')
        self.stride, self.levels, self.num_classes = stride, tuple(levels), num_classes
        self.read_levels = self.levels
        self.register_buffer('class_weights', torch.tensor(weights), persistent=False)
        # A bias in each would be the same number several times over: only the first has one.
        self.lateral = nn.ModuleList(nn.Conv2d(in_channels, channels, 1, bias=i == 0) for i in range(len(self.levels)))
        self.smooth = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Levels of (V, N, C, h, w) -> logits (V x N, K, h, w) at the finest level, camera fastest."""
        picked = [pick_level(feats, level, 'ImageSegHead').flatten(0, 1) for level in self.levels]
        size = picked[0].shape[-2:]
        if any(x.shape[-1] > size[-1] for x in picked):
            raise ValueError(f'ImageSegHead.levels={self.levels}: level {self.levels[0]} must be the finest, but the widths '
                             f'are {[x.shape[-1] for x in picked]}')
        total = sum(self._enlarge(lateral(x), size) for lateral, x in zip(self.lateral, picked))
        return self.classify(self.smooth(total))

    def compute_losses(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Calibration) -> dict[str, Tensor]:
        """loss_img_seg: cross-entropy over the labelled pixels of all ranks, as torch's weighted mean; see TaskHead.loss."""
        logits = self.pixel_logits(self(feats))
        labels = camera_labels(samples, calibration)
        target = seg_target(labels, calibration, logits.shape[-2:], self.num_classes)
        # torch's own sum over a map adds up in another order in each run on a GPU.
        total = F.cross_entropy(logits, target, self.class_weights, ignore_index=IGNORED, reduction='none').sum()
        weight = torch.cat([self.class_weights, self.class_weights.new_zeros(IGNORED + 1 - self.num_classes)])[target].sum()
        return {'loss_img_seg': total / mean_over_ranks(weight).clamp(min=1e-6)}

    @torch.no_grad()
    def predict(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Calibration) -> None:
        """Sets `pred_img_sem_seg`: (N, Hp, Wp) uint8 at the padded network size; 255 where there is no image."""
        classes = self.pixel_logits(self(feats)).argmax(dim=1).to(torch.uint8)
        seen = cells_inside(seen_hw(calibration).to(classes.device), classes.shape[-2:], stride=1)
        classes = classes.masked_fill(~seen, IGNORED).unflatten(0, (-1, len(calibration.cam_names)))
        for sample, frame in zip(samples, classes, strict=True):
            sample.set_field(frame, self.field)

    def pixel_logits(self, logits: Tensor) -> Tensor:
        """(M, K, h, w) -> (M, K, Hp, Wp) float32, one per network pixel."""
        height, width = logits.shape[-2:]
        return self._enlarge(logits.float(), (height * self.stride, width * self.stride))

    @staticmethod
    def _enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
        """Bilinear; cell k covers pixels k * stride .. (k + 1) * stride - 1, which is align_corners=False."""
        return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size, mode='bilinear', align_corners=False)


def seg_target(labels: Sequence[ImageLabels | None], calibration: Calibration, shape: Sequence[int],
               num_classes: int) -> Tensor:
    """(V x N, Hp, Wp) int64 classes on the calibration's device; 255 in padding, masked cameras and where nobody labelled.

    Args:
        labels: V x N on the host, camera fastest; their `sem_seg` has the network image's size, without or with the padding.
        calibration: the frames' cameras.
        shape: (Hp, Wp) padded network size.
        num_classes: classes the head knows.

    Raises:
        ValueError: naming the camera, for a map of another size or with a class that the head does not know.
    """
    given = [None if label is None else label.sem_seg for label in labels]
    _check_sizes(given, calibration, shape)
    maps = torch.full((len(labels), *shape), IGNORED, dtype=torch.uint8)
    for target, one in zip(maps, given):
        if one is not None:
            target[:one.shape[0], :one.shape[1]] = one[:shape[0], :shape[1]]
    inside = cells_inside(seen_hw(calibration), shape, stride=1)
    wrong = (maps >= num_classes) & (maps != IGNORED)
    if wrong.any() and (wrong := wrong & inside.cpu()).any():
        image = int(wrong.flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(f'camera {_camera(calibration, image)}: sem_seg holds class {int(maps[image][wrong[image]][0])}, but '
                         f'ImageSegHead.num_classes is {num_classes} ({IGNORED} is unknown)')
    return maps.to(inside.device, non_blocking=True).long().masked_fill(~inside, IGNORED)


def _check_sizes(given: Sequence[Tensor | None], calibration: Calibration, shape: Sequence[int]) -> None:
    """Maps that are not padded must be of their image's size, for which the host has to ask the device."""
    odd = {i: tuple(one.shape) for i, one in enumerate(given) if one is not None and tuple(one.shape) != tuple(shape)}
    sizes = seen_hw(calibration).tolist() if odd else []
    for i, found in odd.items():
        size = tuple(sizes[i])
        if size not in (found, MASKED):
            raise ValueError(f'camera {_camera(calibration, i)}: sem_seg is {found}, but the network image is {size} and '
                             f'padded {tuple(shape)}')


def _camera(calibration: Calibration, image: int) -> str:
    return calibration.cam_names[image % len(calibration.cam_names)]
