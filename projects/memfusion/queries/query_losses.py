"""Queries, training. In: what every layer says of real and noisy queries, the truth. Out: focal and L1 losses by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from torch import Tensor

from projects.memfusion.losses.ranks import mean_over_ranks
from projects.memfusion.structures import SceneTruth

from .assignment import Assigner
from .boxes import CODE_SIZE, BoxCode
from .denoising import Denoising
from .query_outputs import QueryOutputs


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses, which are the costs of matching, too.

    Attributes:
        cls_weight: of the focal loss.
        box_weight: of the L1 loss of codes.
        code_weights: 10 weights in the order of the head's code.
        match_code_weights: 10 weights in the cost of matching.
        alpha, gamma: of the focal loss (Lin et al., ICCV 2017).

    Raises:
        ValueError: for weights of another number.
    """

    cls_weight: float = 2.0
    box_weight: float = 0.25
    code_weights: Sequence[float] = field(default=(1.0,) * 8 + (0.2,) * 2)
    match_code_weights: Sequence[float] = field(default=(1.0,) * 8 + (0.0,) * 2)
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        for name in ('code_weights', 'match_code_weights'):
            if len(getattr(self, name)) != CODE_SIZE:
                raise ValueError(f'{name} must be {CODE_SIZE} numbers, one for each of the code, got '
                                 f'{list(getattr(self, name))}')


@dataclass(frozen=True)
class QueryLosses:
    """The losses of a query head.

    Attributes:
        settings: their weights.
        code: of the head.
        denoising: of its noisy queries; None is none.
    """

    settings: LossSettings
    code: BoxCode
    denoising: Denoising | None

    @cached_property
    def assigner(self) -> Assigner:
        """Built when it is first asked."""
        said = self.settings
        return Assigner(dict(weight=said.cls_weight, alpha=said.alpha, gamma=said.gamma),
                        dict(weight=said.box_weight, code_weights=said.match_code_weights))

    def of(self, outputs: QueryOutputs, truth: SceneTruth) -> dict[str, Tensor]:
        """Losses by name: those of the last layer bare, of layer i `d{i}.`, of noisy queries `dn.` in front."""
        logits, codes, there = outputs.logits, outputs.codes, outputs.there
        true_codes = [self.code.encode(boxes.float()) for boxes in truth.boxes]
        matched = self.assigner.match(logits, codes, true_codes, truth.labels, there)
        asked = 0 if self.denoising is None else self.denoising.groups * sum(map(len, truth.labels))
        counts = torch.tensor([float((matched[-1] >= 0).sum()), float(asked)]).to(logits.device, non_blocking=True)
        counts = mean_over_ranks(counts).clamp(min=1.0 / get_world_size())
        places = matched.to(logits.device, non_blocking=True)
        targets, target_codes = self._targets(places, true_codes, truth.labels, logits.shape[-1])
        named = _named(self._sums(logits, codes, targets, target_codes, places >= 0, counts[:1], counts[:1], there), '')
        noisy, said = outputs.noisy, self.denoising
        if noisy is not None and outputs.noisy_logits is not None and outputs.noisy_codes is not None and said is not None:
            wanted = (noisy.labels, noisy.codes, noisy.there)
            labels, of_noisy, asking = (part.expand(len(logits), *part.shape) for part in wanted)
            positives = (counts[1:] * said.share_positive).clamp(min=1.0 / get_world_size())
            sums = self._sums(outputs.noisy_logits, outputs.noisy_codes, labels, of_noisy, asking, positives, counts[1:],
                              noisy.there)
            named.update(_named([part * said.loss_weight for part in sums], 'dn.'))
        return named

    def _targets(self, places: Tensor, true_codes: Sequence[Tensor], labels: Sequence[Tensor],
                 num_classes: int) -> tuple[Tensor, Tensor]:
        """Labels (L, B, Q), the number of classes for none, and codes (L, B, Q, 10)."""
        targets, codes = [], []
        for row, (code, label) in enumerate(zip(true_codes, labels)):  # one more of each, for place -1
            targets.append(F.pad(label, (0, 1), value=num_classes)[places[:, row]])
            codes.append(F.pad(code, (0, 0, 0, 1))[places[:, row]])
        return torch.stack(targets, dim=1), torch.stack(codes, dim=1)

    def _sums(self, logits: Tensor, codes: Tensor, targets: Tensor, target_codes: Tensor, matched: Tensor, positives: Tensor,
              boxes: Tensor, counted: Tensor | None) -> list[Tensor]:
        """(L,) losses of classes and of boxes; `counted`, (B, Q), says which queries have a class at all."""
        focal = focal_loss(logits.float(), targets, self.settings.alpha, self.settings.gamma)
        if counted is not None:
            focal = focal * counted[..., None]
        known = matched[..., None] & ~target_codes.isnan()
        weights = codes.new_tensor(self.settings.code_weights, dtype=torch.float32)
        distance = (codes.float() - target_codes.where(known, codes.float())).abs() * weights
        distance = distance.where(known, 0.0)
        return [self.settings.cls_weight * focal.sum((1, 2, 3)) / positives,
                self.settings.box_weight * distance.sum((1, 2, 3)) / boxes]


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """(..., K) losses of every class (Lin et al., ICCV 2017); labels (...) int64, K is none of them."""
    truth = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
    probability = logits.sigmoid()
    miss = truth * (1 - probability) + (1 - truth) * probability
    weight = truth * alpha + (1 - truth) * (1 - alpha)
    return weight * miss ** gamma * F.binary_cross_entropy_with_logits(logits, truth, reduction='none')


def _named(losses: Sequence[Tensor], prefix: str) -> dict[str, Tensor]:
    last = len(losses[0]) - 1
    return {f'{prefix}{"" if layer == last else f"d{layer}."}{name}': value
            for name, of_layers in zip(('loss_cls', 'loss_bbox'), losses) for layer, value in enumerate(of_layers.unbind(0))}
