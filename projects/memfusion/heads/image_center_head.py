"""Heads. In: image features of one level (V, N, C, h, w). Out: 2-D boxes with depth per camera, network pixels; losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.losses import GaussianFocalLoss
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.dist import get_world_size
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn

from projects.memfusion.losses.center_losses import MaskedL1Loss
from projects.memfusion.losses.ranks import mean_over_ranks
from projects.memfusion.structures import Calibration

from .image_center_targets import CenterMaps, cells_inside, center_targets, decode_centers, focal_px, seen_hw
from .task_head import TaskHead, camera_labels, pick_level

BRANCH_WEIGHTS = dict(heatmap=1.0, size=0.1, offset=1.0, depth=1.0)
TYPICAL_LOG_DEPTH = math.log(20 / 500)  # 20 m at a focal length of 500 px: where the depth branch starts


@MODELS.register_module()
class ImageCenterHead(TaskHead):
    """CenterNet (Zhou et al., "Objects as Points", 2019) in every camera, with depth.

    Depth is learned as log(depth / focal length in network pixels): an image tells how large a thing looks, so this keeps
    its meaning when images are resized and when the cameras of a rig have different lenses.

    mmdet's CenterNetHead is not the base: it has no depth, no images that count in part (padding) or not at all (missing
    cameras), divides by the objects of its own rank, and puts pixel centres at the pixels' corners. Its Gaussians, peaks and
    loss are used.

    Args:
        in_channels: C of the features.
        num_classes: K; labels are 0..K-1.
        stride: network pixels per cell of that level.
        level: which of the img_feats.
        feat_channels: width of the branches.
        min_overlap: IoU that a box moved by the Gaussian's radius still has.
        max_per_img: boxes per camera at most.
        score_threshold: boxes must score more.
        branch_weights: loss weights of heatmap, size, offset, depth where they differ from the defaults (1, 0.1, 1, 1).
        loss_weight: multiplies all of them.
    """

    needs = 'img'
    field = 'pred_img_boxes'

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        stride: int,
        level: int = 0,
        feat_channels: int = 64,
        min_overlap: float = 0.3,
        max_per_img: int = 100,
        score_threshold: float = 0.05,
        branch_weights: dict[str, float] | None = None,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        unknown = set(branch_weights or {}) - set(BRANCH_WEIGHTS)
        if unknown:
            raise ValueError(f'ImageCenterHead.branch_weights: no branches {sorted(unknown)}, only {list(BRANCH_WEIGHTS)}')
        weights = {**BRANCH_WEIGHTS, **(branch_weights or {})}
        self.stride, self.level, self.min_overlap = stride, level, min_overlap
        self.read_levels = (level,)
        self.max_per_img, self.score_threshold = max_per_img, score_threshold
        self.heatmap = _branch(in_channels, feat_channels, num_classes, bias_init_with_prob(0.1))
        self.size = _branch(in_channels, feat_channels, 2)
        self.offset = _branch(in_channels, feat_channels, 2)
        self.depth = _branch(in_channels, feat_channels, 1, TYPICAL_LOG_DEPTH)
        self.loss_heatmap = GaussianFocalLoss(loss_weight=weights['heatmap'])
        self.loss_size, self.loss_offset, self.loss_depth = (
            MaskedL1Loss(loss_weight=weights[name]) for name in ('size', 'offset', 'depth'))

    def forward(self, feats: Sequence[Tensor]) -> CenterMaps:
        """Levels of (V, N, C, h, w) -> maps of the V x N images, camera fastest."""
        x = pick_level(feats, self.level, 'ImageCenterHead').flatten(0, 1)
        return CenterMaps(self.heatmap(x), self.size(x), self.offset(x), self.depth(x))

    def compute_losses(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Calibration) -> dict[str, Tensor]:
        """loss_img_heatmap, loss_img_size, loss_img_offset, loss_img_depth; see TaskHead.loss."""
        maps = self(feats)
        targets = center_targets(camera_labels(samples, calibration), seen_hw(calibration), focal_px(calibration).flatten(),
                                 maps, self.stride, self.min_overlap)
        # Probability 0 where the target is 0 costs nothing: so the cells that do not count drop out, without gradient.
        unknown = ~targets.known[:, None]
        heat = maps.heatmap.float().sigmoid().clamp(1e-4, 1 - 1e-4).masked_fill(unknown, 0.0)
        truth = targets.heatmap.masked_fill(unknown, 0.0)
        size, offset, log_depth = (m.flatten(2).gather(2, targets.cells[:, None].expand(-1, m.shape[1], -1)).mT.float()
                                   for m in maps[1:])
        counts, has_depth = targets.owned[..., None], (targets.owned[..., None] & targets.log_depth.isfinite())
        peaks, objects, depths = mean_over_ranks(torch.stack([truth.eq(1).sum(), counts.sum(), has_depth.sum()]).float())
        both = counts.float().expand_as(size)
        return {
            'loss_img_heatmap': self.loss_heatmap(heat, truth, avg_factor=peaks.clamp(min=1.0 / get_world_size())),
            'loss_img_size': self.loss_size(size, targets.size, both, avg_factor=2 * objects),
            'loss_img_offset': self.loss_offset(offset, targets.offset, both, avg_factor=2 * objects),
            'loss_img_depth': self.loss_depth(log_depth, targets.log_depth, has_depth.float(), avg_factor=depths),
        }

    @torch.no_grad()
    def predict(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Calibration) -> None:
        """Sets `pred_img_boxes`: N x InstanceData(bboxes (n, 4) xyxy network pixels, scores, labels, depth_m).

        A camera that is masked out has no boxes.
        """
        maps, cameras = self(feats), len(calibration.cam_names)
        img_hw = seen_hw(calibration).to(maps.heatmap.device)
        seen = cells_inside(img_hw, tuple(maps.heatmap.shape[-2:]), self.stride)
        focal = focal_px(calibration).flatten().to(img_hw.device)
        found = decode_centers(maps, seen, img_hw, focal, self.stride, self.max_per_img, self.score_threshold)
        for i, sample in enumerate(samples):
            sample.set_field(found[i * cameras:(i + 1) * cameras], self.field)


def _branch(in_channels: int, feat_channels: int, out_channels: int, bias: float = 0.0) -> nn.Sequential:
    """3x3 convolution, ReLU, 1x1 convolution whose bias is given."""
    first, last = nn.Conv2d(in_channels, feat_channels, 3, padding=1), nn.Conv2d(feat_channels, out_channels, 1)
    nn.init.constant_(last.get_parameter('bias'), bias)
    return nn.Sequential(first, nn.ReLU(inplace=True), last)
