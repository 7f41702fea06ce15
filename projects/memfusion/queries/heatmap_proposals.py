"""Queries. In: LiDAR's BEV features (B, C, H, W). Out: queries where a heat map of the classes peaks; the map's loss.

The query initialisation of TransFusion (Bai et al., CVPR 2022): a query begins where an object may be, knows what is there and
of which class, and has a box to correct instead of one to search for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.geometry import centerpoint_radius, draw_gaussians, full_precision, pad_rows
from projects.memfusion.losses.fusion_losses import center_focal_loss

from .bev_embedding import cell_fractions

_RARE = 0.1
"""Share of the cells that start out as a centre, as in CenterPoint (Yin et al., CVPR 2021)."""


@dataclass(frozen=True)
class ProposalSettings:
    """How queries are proposed.

    Attributes:
        hidden_channels: of the branch.
        kernel: a cell is a peak of a class where none of `kernel` x `kernel` cells around it is higher; odd. The published code
            takes 1 for small classes and never a cell of the border; here all classes and cells are alike.
        loss_weight: of the heat map.
        min_overlap, min_radius: of the Gaussians around true centres, as CenterPoint's `gaussian_overlap` and `min_radius`.
        min_points: boxes that hold fewer points in the frame are not asked of its heat map; above 0 the frames must count them.

    Raises:
        ValueError: for an even kernel, no channels, or negative numbers.
    """

    hidden_channels: int = 64
    kernel: int = 3
    loss_weight: float = 1.0
    min_overlap: float = 0.1
    min_radius: int = 2
    min_points: int = 0

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f'kernel must be odd, got {self.kernel}')
        if self.hidden_channels < 1 or min(self.loss_weight, self.min_radius, self.min_points) < 0:
            raise ValueError(f'at least one channel and no negative number are wanted, got {self}')
        if not 0 < self.min_overlap < 1:
            raise ValueError(f'min_overlap must lie between 0 and 1, got {self.min_overlap}')


@dataclass(frozen=True)
class Proposed:
    """P queries of B frames, surest first.

    Attributes:
        references: (B, P, 3) in 0..1 of the range: centres of cells, in the middle of the heights.
        content: (B, P, E).
        logits: (B, K, H, W) float32, the heat map.
        says: (B,) bool, frames whose BEV says anything; those of the others are not there. None is all.
    """

    references: Tensor
    content: Tensor
    logits: Tensor
    says: Tensor | None

    @property
    def there(self) -> Tensor | None:
        """(B, P) bool; None is all."""
        return None if self.says is None else self.says[:, None].expand(self.references.shape[:2])


class HeatmapProposals(nn.Module):
    """The branch. What it chooses has no gradient: the heat map learns from true centres, the content from the decoder.

    Args:
        settings: as there.
        num_proposed: P.
        in_channels: C.
        num_classes: K.
        dim: E.
        point_cloud_range: what the BEV covers, metres.
    """

    def __init__(self, settings: ProposalSettings, num_proposed: int, in_channels: int, num_classes: int, dim: int,
                 point_cloud_range: Sequence[float]) -> None:
        super().__init__()
        self.settings, self.num_proposed, self.point_cloud_range = settings, num_proposed, tuple(point_cloud_range)
        hidden = settings.hidden_channels
        self.reduce = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.expand = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.heat = nn.Conv2d(hidden, num_classes, 3, padding=1)
        nn.init.constant_(self.heat.get_parameter('bias'), -math.log((1 - _RARE) / _RARE))
        self.content, self.classes = nn.Linear(hidden, dim), nn.Embedding(num_classes, dim)

    def forward(self, bev: Tensor, says: Tensor | None = None) -> Proposed:
        """(B, C, H, W) -> Proposed.

        Args:
            bev: as above.
            says: (B,) bool, frames whose BEV says anything. None is all.

        Raises:
            ValueError: where the heat map has fewer cells than queries are asked for.
        """
        features = self.reduce(bev).relu()
        if says is not None:
            features = features.masked_fill(~says[:, None, None, None], 0.0)
        logits = self.heatmap(features)
        cells, classes = highest_peaks(logits.detach(), self.settings.kernel, self.num_proposed)
        found = features.flatten(2).transpose(1, 2).gather(1, cells[..., None].expand(-1, -1, features.shape[1]))
        height, width = bev.shape[2:]
        references = F.pad(cell_fractions((height, width), bev.device)[cells], (0, 1), value=0.5)
        return Proposed(references, self.content(found) + self.classes(classes), logits, says)

    @full_precision
    def heatmap(self, features: Tensor) -> Tensor:
        """(B, E', H, W) -> (B, K, H, W) logits; in half precision neighbours would be equally high."""
        return self.heat(self.expand(features.float()).relu())

    def loss(self, proposed: Proposed, truths: Sequence[Any]) -> Tensor:
        """Penalty-reduced focal loss of the heat map, per centre of all ranks; frames that say nothing are not asked.

        Args:
            proposed: of B frames.
            truths: their gt_instances_3d.
        """
        logits, device = proposed.logits, proposed.logits.device
        labels = [truth.labels_3d for truth in truths]
        if self.settings.min_points:
            labels = [kinds.masked_fill(points_of(truth) < self.settings.min_points, -1)
                      for kinds, truth in zip(labels, truths)]
        target = class_heatmaps([truth.bboxes_3d.tensor.to(device) for truth in truths], [kinds.to(device) for kinds in labels],
                                logits.shape[1:], self.point_cloud_range, self.settings)
        if proposed.says is not None:
            silent = ~proposed.says[:, None, None, None]
            logits, target = logits.masked_fill(silent, -100.0), target.masked_fill(silent, 0.0)
        return self.settings.loss_weight * center_focal_loss(logits, target)


def points_of(truth: Any) -> Tensor:
    """(n,) points that true boxes hold in their frame.

    Raises:
        ValueError: where boxes do not say how many they hold.
    """
    if 'num_points' in truth:
        return truth.num_points
    if len(truth):
        raise ValueError('model.pts_bbox_head.proposals.min_points asks for the points in boxes, and the frames do not count '
                         'them: put dict(type="CountBoxPoints") before PackClipFrame into the training pipeline')
    return truth.labels_3d


def highest_peaks(heat: Tensor, kernel: int, num: int) -> tuple[Tensor, Tensor]:
    """The `num` highest peaks of every frame, over all classes; where there are fewer, the highest of the other cells follow.

    Args:
        heat: (B, K, H, W).
        kernel: see ProposalSettings.
        num: P.

    Returns:
        Cells (B, P) int64, row * W + column, and classes (B, P) int64, highest first.

    Raises:
        ValueError: where there are not so many.
    """
    flat, cells = heat.flatten(1), heat.shape[2] * heat.shape[3]
    if num > flat.shape[1]:
        raise ValueError(f'model.pts_bbox_head.queries.num_proposed={num}, but a heat map of {tuple(heat.shape[1:])} has '
                         f'{flat.shape[1]} cells: propose fewer')
    lower = (heat < F.max_pool2d(heat, kernel, 1, kernel // 2)).flatten(1)
    spread = flat.amax(1, keepdim=True) - flat.amin(1, keepdim=True) + 1.0
    places = torch.where(lower, flat - spread, flat).topk(num, dim=1).indices
    return places % cells, places // cells


@torch.no_grad()
def class_heatmaps(boxes: Sequence[Tensor], labels: Sequence[Tensor], shape: Sequence[int],
                   point_cloud_range: Sequence[float], settings: ProposalSettings) -> Tensor:
    """(B, K, H, W): 1 at the centres of a class's boxes, falling off as CenterPoint's targets do.

    Args:
        boxes: B x (n, 5 or more), x, y, z, length, width.
        labels: B x (n,) int64, below K; negative ones are not drawn.
        shape: (K, H, W).
        point_cloud_range: what the map covers, metres.
        settings: of the Gaussians.
    """
    classes, height, width = shape
    padded, there = pad_rows([frame.detach().float()[:, :5] for frame in boxes])
    kinds, _ = pad_rows(list(labels))
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    cell_m = padded.new_tensor([(x_max - x_min) / width, (y_max - y_min) / height])
    cell = ((padded[..., :2] - padded.new_tensor([x_min, y_min])) / cell_m).int()  # towards 0, as mmdet3d
    size = padded[..., 3:5] / cell_m
    inside = there & (kinds >= 0) & (cell >= 0).all(-1) & (cell[..., 0] < width) & (cell[..., 1] < height) & (size > 0).all(-1)
    radius = centerpoint_radius(size[..., 0], size[..., 1], settings.min_overlap).where(inside, 0.0)
    return draw_gaussians(cell.long(), radius.int().clamp(min=settings.min_radius).long(), inside, (classes, height, width),
                          kinds.clamp(min=0))
