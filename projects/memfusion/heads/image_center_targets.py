"""Heads, CenterNet in the image. In: labelled boxes, network pixels. Out: targets in feature cells; and boxes from peaks.

Pixel u (an integer at a pixel's centre) lies at (u + 0.5) / stride cells from the left edge of the feature map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmdet.models.utils import get_local_maximum, get_topk_from_heatmap, transpose_and_gather_feat
from mmengine.structures import InstanceData
from torch import Tensor

from projects.geometry import cornernet_radius, draw_gaussians, full_precision, pad_rows
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.image_labels import ImageLabels


class CenterMaps(NamedTuple):
    """What the head says of M images: heatmap logits (M, K, h, w), size, offset (M, 2, h, w) cells, log_depth (M, 1, h, w)."""

    heatmap: Tensor
    size: Tensor
    offset: Tensor
    log_depth: Tensor


@dataclass(frozen=True)
class CenterTargets:
    """What it should say, of M images with n objects at most.

    Attributes:
        heatmap: (M, K, h, w), 1 at centres, a Gaussian around them.
        known: (M, h, w) bool, cells of an image with labels; no others count.
        cells: (M, n) int64, row * w + column of an object's centre; 0 where it has none.
        owned: (M, n) bool, objects that own their centre's cell: the nearest of those that share it; no others count below.
        size, offset: (M, n, 2) cells along x and y; the offset is from the cell's centre to the object's.
        log_depth: (M, n, 1) log of depth over focal length; NaN where the label has no depth in front of the camera.
    """

    heatmap: Tensor
    known: Tensor
    cells: Tensor
    owned: Tensor
    size: Tensor
    offset: Tensor
    log_depth: Tensor


@full_precision
def focal_px(calibration: Calibration) -> Tensor:
    """(B, N) focal length in network pixels, the geometric mean of both axes."""
    k = calibration.img_aug[..., :2, :2] @ calibration.img_from_cam[..., :2, :2]
    return (k[..., 0, 0] * k[..., 1, 1] - k[..., 0, 1] * k[..., 1, 0]).abs().sqrt()


def cells_inside(img_hw: Tensor, shape: Sequence[int], stride: int) -> Tensor:
    """(M, 2) image sizes in pixels -> (M, h, w) bool, cells that hold at least one pixel of the image."""
    row = torch.arange(shape[0], device=img_hw.device) * stride
    column = torch.arange(shape[1], device=img_hw.device) * stride
    return (row[None, :, None] < img_hw[:, 0, None, None]) & (column[None, None, :] < img_hw[:, 1, None, None])


def seen_hw(calibration: Calibration) -> Tensor:
    """(M, 2) network image sizes in pixels, padding excluded, camera fastest; a masked camera has no pixels."""
    return (calibration.img_hw * calibration.cam_valid[..., None]).flatten(0, 1)


@torch.no_grad()
def center_targets(labels: Sequence[ImageLabels | None], img_hw: Tensor, focal: Tensor, maps: CenterMaps, stride: int,
                   min_overlap: float) -> CenterTargets:
    """Targets of M images, on the maps' device; no object is looked at from the host.

    Args:
        labels: M labels, on the host; an image with None counts nowhere. Labels below 0 are of no class and skipped, and so
            are boxes whose centre is outside the image.
        img_hw: (M, 2) network image sizes, padding excluded.
        focal: (M,) focal lengths in network pixels.
        maps: what the head said; gives shapes and device.
        stride: network pixels per feature cell.
        min_overlap: IoU that a box moved by the Gaussian's radius still has.

    Raises:
        ValueError: where a label is not a class of the head.
    """
    device, (num_classes, height, width) = maps.heatmap.device, maps.heatmap.shape[1:]
    table = _packed(labels, num_classes).to(device, non_blocking=True)
    img_hw, focal = img_hw.to(device), focal.to(device).double()[:, None]
    depth_m = table[..., 4]
    far_first = depth_m.masked_fill(depth_m.isnan(), math.inf).argsort(dim=1, descending=True, stable=True)
    table = table.gather(1, far_first[..., None].expand_as(table))  # unknown depths, at the front, hide nobody
    depth_m, kind = table[..., 4], table[..., 5].long()
    center = (table[..., :2] + table[..., 2:4]) / 2 + 0.5  # from the image's upper left corner
    valid = (kind >= 0) & (center >= 0).all(-1) & (center < img_hw.flip(-1)[:, None]).all(-1)
    center, size = center / stride, (table[..., 2:4] - table[..., :2]) / stride
    cell = torch.where(valid[..., None], center, 0.0).long()
    radius = cornernet_radius(size[..., 1], size[..., 0], min_overlap).int().clamp(min=0).long()
    heatmap = draw_gaussians(cell, radius, valid, (num_classes, height, width), kind.clamp(min=0))
    flat = cell[..., 1] * width + cell[..., 0]
    hidden = ((flat[:, :, None] == flat[:, None, :]) & valid[:, None, :]).triu(1).any(-1)  # a nearer one is in the cell
    log_depth = torch.where(depth_m > 0, (depth_m / focal).log(), math.nan)
    has_labels = torch.tensor([label is not None for label in labels], dtype=torch.bool).to(device, non_blocking=True)
    known = cells_inside(img_hw, (height, width), stride) & has_labels[:, None, None]
    return CenterTargets(heatmap, known, flat, valid & ~hidden, size.float(), (center - cell - 0.5).float(),
                         log_depth.float()[..., None])


def _packed(labels: Sequence[ImageLabels | None], num_classes: int) -> Tensor:
    """(M, n, 6) float64 on the host: box, depth and class of the objects; padding is of class -1."""
    rows = [torch.zeros(0, 6, dtype=torch.float64) if label is None else
            torch.cat([label.boxes_px.double(), label.depth_m.double()[:, None], label.labels.double()[:, None]], dim=1)
            for label in labels]
    table, there = pad_rows([*rows, torch.zeros(0, 6, dtype=torch.float64)])  # one more, as there may be no image at all
    kinds = table[..., 5].masked_fill_(~there, -1)
    if kinds.numel() and kinds.max() >= num_classes:
        raise ValueError(f'gt_img_labels: label {int(kinds.max())}, but the head has num_classes={num_classes}')
    return table[:-1]


def decode_centers(maps: CenterMaps, seen: Tensor, img_hw: Tensor, focal: Tensor, stride: int, max_per_img: int,
                   score_threshold: float) -> list[InstanceData]:
    """Peaks of M heatmaps to boxes.

    Args:
        maps: what the head said.
        seen: (M, h, w) bool; other cells have no peaks.
        img_hw: (M, 2) network image sizes; boxes are cut at the image's edge (half a pixel past the outer pixels' centres).
        focal: (M,) focal lengths in network pixels.
        stride: network pixels per cell.
        max_per_img: peaks per image at most, the surest first.
        score_threshold: peaks must score more.

    Returns:
        M x (bboxes (n, 4) xyxy network pixels, scores (n,), labels (n,) int64, depth_m (n,)), the surest first.
    """
    heat = maps.heatmap.float().sigmoid() * seen[:, None]
    scores, index, labels, rows, columns = get_topk_from_heatmap(get_local_maximum(heat), min(max_per_img, heat[0].numel()))
    size, offset, log_depth = (transpose_and_gather_feat(m.float(), index) for m in (maps.size, maps.offset, maps.log_depth))
    center = (torch.stack([columns, rows.float()], dim=-1) + 0.5 + offset) * stride - 0.5
    half = size.clamp(min=0) * stride / 2
    edge = img_hw.flip(-1)[:, None].to(center) - 0.5
    low, high = (torch.minimum(corner, edge).clamp(min=-0.5) for corner in (center - half, center + half))
    keep = (scores > score_threshold) & (high > low).all(-1)
    boxes, depth_m = torch.cat([low, high], dim=-1), log_depth[..., 0].exp() * focal[:, None]
    return [InstanceData(bboxes=b[k], scores=s[k], labels=c[k], depth_m=d[k])
            for b, s, c, d, k in zip(boxes, scores, labels, depth_m, keep)]
