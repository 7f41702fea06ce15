"""Heads, CenterNet in the image. In: labelled boxes, network pixels. Out: targets in feature cells; and boxes from peaks.

Pixel u (an integer at a pixel's centre) lies at (u + 0.5) / stride cells from the left edge of the feature map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from mmdet.models.utils import (
    gaussian_radius,
    gen_gaussian_target,
    get_local_maximum,
    get_topk_from_heatmap,
    transpose_and_gather_feat,
)
from mmengine.structures import InstanceData
from torch import Tensor

from projects.geometry import full_precision
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
    """What it should say. P cells hold an object's centre.

    Attributes:
        heatmap: (M, K, h, w), 1 at centres, a Gaussian around them.
        known: (M, h, w) bool, cells of an image with labels; no others count.
        cells: (P, 3) int64 image, row, column; each cell once, for its nearest object.
        size, offset: (P, 2) cells along x and y; the offset is from the cell's centre to the object's.
        log_depth: (P, 1) log of depth over focal length; NaN where the label has no depth in front of the camera.
    """

    heatmap: Tensor
    known: Tensor
    cells: Tensor
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


def center_targets(labels: Sequence[ImageLabels | None], img_hw: Tensor, focal: Tensor, maps: CenterMaps, stride: int,
                   min_overlap: float) -> CenterTargets:
    """Targets of M images, on the maps' device.

    Args:
        labels: M labels; an image with None counts nowhere. Labels below 0 are of no class and skipped, and so are boxes
            whose centre is outside the image.
        img_hw: (M, 2) network image sizes, padding excluded.
        focal: (M,) focal lengths in network pixels.
        maps: what the head said; gives shapes and device.
        stride: network pixels per feature cell.
        min_overlap: IoU that a box moved by the Gaussian's radius still has.

    Raises:
        ValueError: where a label is not a class of the head.
    """
    num_classes, height, width = maps.heatmap.shape[1:]
    heatmap = torch.zeros_like(maps.heatmap, dtype=torch.float32)
    rows: dict[tuple[int, int, int], list[float]] = {}
    for image, (label, size_px, f) in enumerate(zip(labels, img_hw.tolist(), focal.tolist(), strict=True)):
        if label is None:
            continue
        if len(label.labels) and int(label.labels.max()) >= num_classes:
            raise ValueError(f'gt_img_labels: label {int(label.labels.max())}, but the head has num_classes={num_classes}')
        for kind, x, y, w, h, depth_m in _objects_far_first(label, size_px, stride):  # so the nearest writes a cell last
            column, row = int(x), int(y)
            gen_gaussian_target(heatmap[image, kind], [column, row], max(0, int(gaussian_radius((h, w), min_overlap))))
            log_depth = math.log(depth_m / f) if depth_m > 0 else math.nan
            rows[image, row, column] = [w, h, x - column - 0.5, y - row - 0.5, log_depth]
    has_labels = torch.tensor([label is not None for label in labels], dtype=torch.bool, device=heatmap.device)
    known = cells_inside(img_hw.to(heatmap.device), (height, width), stride) & has_labels[:, None, None]
    cells = torch.tensor(list(rows), dtype=torch.int64).reshape(-1, 3).to(heatmap.device)
    values = torch.tensor(list(rows.values()), dtype=torch.float32).reshape(-1, 5).to(heatmap.device)
    return CenterTargets(heatmap, known, cells, values[:, :2], values[:, 2:4], values[:, 4:])


def _objects_far_first(label: ImageLabels, img_hw: Sequence[int],
                       stride: int) -> Iterator[tuple[int, float, float, float, float, float]]:
    """Class, centre x and y, width and height in cells, depth in metres of the boxes that have a class and a centre inside."""
    boxes, kinds = label.boxes_px.double().tolist(), label.labels.tolist()
    depth_m = label.depth_m.double()
    far_first = depth_m.masked_fill(depth_m.isnan(), math.inf).argsort(descending=True, stable=True)  # unknown hides nobody
    for index in far_first.tolist():
        u0, v0, u1, v1 = boxes[index]
        u, v = (u0 + u1) / 2 + 0.5, (v0 + v1) / 2 + 0.5  # from the image's upper left corner
        if kinds[index] >= 0 and 0 <= u < img_hw[1] and 0 <= v < img_hw[0]:
            yield (kinds[index], u / stride, v / stride, (u1 - u0) / stride, (v1 - v0) / stride, float(label.depth_m[index]))


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
