"""Heads, losses of a multi-head. In: predictions and targets of every anchor. Out: loss_cls, loss_bbox, loss_dir."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.memfusion.losses.ranks import mean_over_ranks

from .coder import YAW, DirectionBins
from .groups import GroupOutput
from .targets import AnchorTargets


@dataclass(frozen=True)
class LossWeights:
    """What anchors and numbers count.

    Args:
        code_weights: one for each number of a box code.
        pos_weight, neg_weight: of positive and of background anchors in the class loss.
    """

    code_weights: Sequence[float]
    pos_weight: float = 1.0
    neg_weight: float = 1.0


class MultiHeadLoss:
    """Sums over the anchors of a frame, divided by the frame's positives (at least 1), averaged over frames.

    The mean over frames is that of all ranks: DDP then has the gradients that one process with all frames has, also where
    frames are missing on some. All in float32.

    Args:
        weights: see LossWeights.
        loss_cls, loss_bbox, loss_dir: elementwise losses, e.g. dict(type='MaskedL1Loss', loss_weight=0.25).
        direction: bins; None without a direction classifier.
    """

    def __init__(self, weights: LossWeights, loss_cls: dict, loss_bbox: dict, direction: DirectionBins | None = None,
                 loss_dir: dict | None = None) -> None:
        if (direction is None) != (loss_dir is None):
            raise ValueError('AnchorHeadMulti: direction (the bins) and loss_dir go together, give both or neither')
        self.weights, self.direction = weights, direction
        self.loss_cls: Any = MODELS.build({**loss_cls, 'reduction': 'sum'})
        self.loss_bbox: Any = MODELS.build({**loss_bbox, 'reduction': 'sum'})
        self.loss_dir: Any = None if loss_dir is None else MODELS.build({**loss_dir, 'reduction': 'sum'})

    def __call__(self, groups: Sequence[GroupOutput], targets: AnchorTargets, anchors: Tensor,
                 num_labelled: int | None = None) -> dict[str, Tensor]:
        """Losses of V frames with N anchors (N, 7), which the groups hold one after another.

        `num_labelled` of them count as frames of this rank, by default all: one that only keeps up with other ranks does not.
        """
        positive = targets.labels > 0
        count = positive.sum(dim=1, keepdim=True).clamp(min=1)
        labelled = len(positive) if num_labelled is None else num_labelled
        frames = mean_over_ranks(anchors.new_full((), float(labelled)))
        frames = torch.where(frames > 0, frames, 1.0)  # no rank has any
        regressed = positive / count / frames
        counted = (self.weights.pos_weight * positive + self.weights.neg_weight * (targets.labels == 0)) / count / frames
        losses: dict[str, list[Tensor]] = {'loss_cls': [], 'loss_bbox': []}
        begin, first = 0, 1
        for group in groups:
            rows = slice(begin, begin + group.cls_logits.shape[1])
            logits, codes = group.cls_logits.float(), group.box_codes.float()
            losses['loss_cls'].append(self._classes(logits, targets.labels[:, rows] - first, counted[:, rows]))
            losses['loss_bbox'].append(self._boxes(codes, targets.codes[:, rows], regressed[:, rows]))
            if self.direction is not None and group.dir_logits is not None:
                # A background anchor has a bin too, but no weight.
                yaw = targets.codes[:, rows, YAW] + anchors[rows, YAW]
                losses.setdefault('loss_dir', []).append(self.loss_dir(
                    group.dir_logits.float().flatten(0, 1), self.direction.bin_of(yaw).flatten(),
                    regressed[:, rows].flatten()))
            begin, first = rows.stop, first + logits.shape[-1]
        return {name: torch.stack(parts).sum() for name, parts in losses.items()}

    def _classes(self, logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
        """logits (V, n, K); label (V, n) counts from the group's first class, others are no class of it."""
        classes = logits.shape[-1]
        one_hot = (label[..., None] == torch.arange(classes, device=label.device)).long()
        return self.loss_cls(logits.flatten(0, 1), one_hot.flatten(0, 1), weight.flatten())

    def _boxes(self, codes: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
        """A number whose target is NaN (an unknown velocity) costs nothing, as published."""
        wanted = torch.where(wanted.isnan(), codes.detach(), wanted)
        if self.direction is not None:
            codes, wanted = _sine_of_difference(codes, wanted)
        code_weights = torch.tensor(self.weights.code_weights, dtype=codes.dtype).to(codes.device, non_blocking=True)
        return self.loss_bbox((codes * code_weights).flatten(0, 1), (wanted * code_weights).flatten(0, 1),
                              weight.flatten()[:, None])


def _sine_of_difference(codes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers whose difference at the yaw is sin(difference): a box turned by half a turn costs nothing."""
    yaw, true_yaw = codes[..., YAW:YAW + 1], wanted[..., YAW:YAW + 1]
    return (torch.cat([codes[..., :YAW], yaw.sin() * true_yaw.cos(), codes[..., YAW + 1:]], dim=-1),
            torch.cat([wanted[..., :YAW], yaw.cos() * true_yaw.sin(), wanted[..., YAW + 1:]], dim=-1))
