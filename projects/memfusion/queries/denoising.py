"""Queries. In: true boxes of B training frames. Out: queries that start near them and are told to find back (DN-DETR).

Source: DN-DETR (Li et al., CVPR 2022), as StreamPETR and CMT use it: groups of points around every box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.encodings.frustum import normalised
from projects.geometry import pad_rows
from projects.memfusion.structures import SceneTruth

from .boxes import BoxCode


@dataclass(frozen=True)
class NoisyQueries:
    """P queries of B frames, group after group; P is at least one a group, so that steps without a box are like the others.

    Attributes:
        points: (B, P, 3) in 0..1 of the range.
        boxes: (B, P, 9) the same in metres, gravity centres, with the true sizes, yaws and velocities.
        labels: (B, P) int64; the number of classes where the noise is so large that nothing should be found.
        codes: (B, P, 10) what is to be found, in the head's code.
        there: (B, P) bool, False where a frame has fewer boxes than another.
        groups: G.
    """

    points: Tensor
    boxes: Tensor
    labels: Tensor
    codes: Tensor
    there: Tensor
    groups: int

    @property
    def num(self) -> int:
        """P."""
        return self.points.shape[1]

    def allowed(self, num_queries: int, num_memory: int = 0) -> Tensor:
        """(B, P + Q, P + Q + M) bool, who may read whom: noisy queries stand first, then Q others, then M that are only read.

        The others never read noisy ones, which know the truth; groups never read each other; padding is read by itself alone.
        """
        total, device = self.num + num_queries, self.points.device
        group = torch.arange(self.num, device=device) // (self.num // self.groups)
        among = (group[:, None] == group) & self.there[:, None]
        among = among | torch.eye(self.num, dtype=torch.bool, device=device)
        reads_noisy = F.pad(among, (0, 0, 0, num_queries))  # False for the others
        return torch.cat([reads_noisy, reads_noisy.new_ones(len(among), total, num_queries + num_memory)], dim=2)


@dataclass(frozen=True)
class Denoising:
    """How noisy queries are made.

    Attributes:
        groups: copies of every box.
        centre_noise: how far a centre moves along each axis at most, in half sizes of its box.
        split: noise of which length, of at most sqrt(3), makes a query one that should find nothing.
        loss_weight: multiplies the losses.

    Raises:
        ValueError: for less than one group, or negative noise.
    """

    groups: int = 10
    centre_noise: float = 1.0
    split: float = 0.75
    loss_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.groups < 1 or min(self.centre_noise, self.split, self.loss_weight) < 0:
            raise ValueError(f'at least one group and no negative noise are wanted, got {self}')

    @property
    def share_positive(self) -> float:
        """Expected share of queries that should find their box, by the published reckoning."""
        return min(math.pi / 6 * self.split ** 3, 1.0)

    @torch.no_grad()
    def noisy(self, truth: SceneTruth, code: BoxCode, num_classes: int, around: Sequence[float]) -> NoisyQueries:
        """Queries around the boxes of B frames.

        Args:
            truth: boxes with bottom centres.
            code: of the head.
            num_classes: label of those that should find nothing.
            around: (x_min, y_min, z_min, x_max, y_max, z_max), the range of points in 0..1, metres.
        """
        rows = [F.pad(boxes.float()[:, :9], (0, 9 - min(boxes.shape[1], 9)), value=torch.nan) for boxes in truth.boxes]
        boxes, there = pad_rows(rows)
        labels, _ = pad_rows(truth.labels)
        missing = max(1 - boxes.shape[1], 0)
        boxes, there, labels = F.pad(boxes, (0, 0, 0, missing)), F.pad(there, (0, missing)), F.pad(labels, (0, missing))
        boxes = torch.where(there[..., None], boxes, boxes.new_tensor([0., 0., 0., 1., 1., 1., 0., 0., 0.]))
        boxes, there, labels = (part.repeat(1, self.groups, *[1] * (part.dim() - 2)) for part in (boxes, there, labels))
        codes = code.encode(boxes)
        noise = torch.rand_like(boxes[..., :3]) * 2 - 1
        centres = boxes[..., :3] + F.pad(boxes[..., 5:6] / 2, (2, 0)) + noise * boxes[..., 3:6] / 2 * self.centre_noise
        labels = labels.masked_fill((noise.norm(dim=-1) > self.split) | ~there, num_classes)
        boxes = torch.cat([centres, boxes[..., 3:]], dim=-1)
        return NoisyQueries(normalised(centres, around).clamp(0, 1), boxes, labels, codes, there, self.groups)


@dataclass(frozen=True)
class ClassDenoising(Denoising):
    """As Denoising, for queries that also begin with a class (SparseBEV, Liu et al., ICCV 2023).

    Attributes:
        label_noise: share of the noisy queries that are given a class by lot.
    """

    label_noise: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_noise <= 1:
            raise ValueError(f'label_noise must be in 0..1, got {self.label_noise}')

    def told(self, labels: Tensor, num_classes: int) -> Tensor:
        """The classes that noisy queries are given: some by lot, and those that should find nothing too."""
        by_lot = (torch.rand(labels.shape, device=labels.device) < self.label_noise) | (labels == num_classes)
        return torch.where(by_lot, torch.randint_like(labels, num_classes), labels)
