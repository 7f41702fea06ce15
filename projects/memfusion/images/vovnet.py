"""Images. In: network pixels (V, 3, H, W). Out: features of some stages, strides 4 to 32, each (V, C, h, w).

VoVNetV2 (Lee and Park, CVPR 2020): each block keeps all that its convolutions made and joins it once, at its end; channels are
then weighed by what the whole picture shows (eSE). Parameters are named as in the published detectron2 code, so that weights of
DD3D, FCOS3D, PETR, StreamPETR and CMT fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_FIRST_STAGE = 2
"""Stages are counted from the stem, which is the first."""


@dataclass(frozen=True)
class VoVSpec:
    """How wide and deep a VoVNet is.

    Attributes:
        stem_channels: of the three convolutions before the stages; the last gives stride 4.
        block_channels: of the convolutions in the blocks of each stage.
        out_channels: of each stage.
        layers: convolutions of a block.
        blocks: of each stage.
    """

    stem_channels: Sequence[int]
    block_channels: Sequence[int]
    out_channels: Sequence[int]
    layers: int
    blocks: Sequence[int]

    def __post_init__(self) -> None:
        stages = len(self.blocks)
        if len(self.stem_channels) != 3 or not stages or {len(self.block_channels), len(self.out_channels)} != {stages}:
            raise ValueError(
                'img_backbone.spec needs three stem_channels, and block_channels, out_channels and blocks of as many stages; '
                f'got {list(self.stem_channels)}, {list(self.block_channels)}, {list(self.out_channels)}, {list(self.blocks)}')
        if min(self.layers, *self.stem_channels, *self.block_channels, *self.out_channels, *self.blocks) < 1:
            raise ValueError(f'img_backbone.spec: all numbers must be at least 1, got {self}')


_WIDE = dict(stem_channels=(64, 64, 128), block_channels=(128, 160, 192, 224), out_channels=(256, 512, 768, 1024))
SPECS = {
    'V-19-eSE': VoVSpec(**_WIDE, layers=3, blocks=(1, 1, 1, 1)),
    'V-39-eSE': VoVSpec(**_WIDE, layers=5, blocks=(1, 1, 2, 2)),
    'V-57-eSE': VoVSpec(**_WIDE, layers=5, blocks=(1, 1, 4, 3)),
    'V-99-eSE': VoVSpec(**_WIDE, layers=5, blocks=(1, 3, 9, 3)),
}


def _conv_norm(name: str, in_channels: int, channels: int, kernel: int = 3, stride: int = 1) -> dict[str, nn.Module]:
    """Convolution, BatchNorm and ReLU under their published names."""
    return {
        f'{name}/conv': nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False),
        f'{name}/norm': nn.BatchNorm2d(channels),
        f'{name}/relu': nn.ReLU(inplace=True),
    }


def _sequence(parts: Mapping[str, nn.Module]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, part in parts.items():
        sequence.add_module(name, part)
    return sequence


class ChannelWeights(nn.Module):
    """eSE: features times hard sigmoids of one linear layer of their means; shape as it was."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(V, C, h, w) -> the same shape."""
        return features * F.hardsigmoid(self.fc(features.mean((2, 3), keepdim=True)))


class OneShotBlock(nn.Module):
    """Convolutions one after another; all that they made is joined once. Adds its input where `residual`."""

    def __init__(self, name: str, in_channels: int, channels: int, out_channels: int, layers: int, residual: bool,
                 with_cp: bool) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * (layers - 1)
        self.layers = nn.ModuleList(
            _sequence(_conv_norm(f'{name}_{i}', width, channels)) for i, width in enumerate(widths))
        self.concat = _sequence(_conv_norm(f'{name}_concat', in_channels + layers * channels, out_channels, kernel=1))
        self.ese = ChannelWeights(out_channels)
        self.residual, self.with_cp = residual, with_cp

    def forward(self, features: Tensor) -> Tensor:
        """(V, C, h, w) -> (V, C', h, w); with_cp computes it again in the backward pass instead of keeping what is inside."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._joined, features, use_reentrant=False)
        return self._joined(features)

    def _joined(self, features: Tensor) -> Tensor:
        made = [features]
        for layer in self.layers:
            made.append(layer(made[-1]))
        joined = self.ese(self.concat(torch.cat(made, dim=1)))
        return joined + features if self.residual else joined


@MODELS.register_module()
class VoVNet(BaseModule):
    """The backbone; slot `img_backbone`.

    Args:
        spec: a name of SPECS, or a dict with the attributes of VoVSpec.
        out_features: whose features are returned, in the network's order: 'stem' (stride 4), 'stage2' (4), 'stage3' (8), ...
        frozen_stages: -1 trains all; 0 freezes the stem; n also the first n stages.
        norm_eval: BatchNorm keeps its running statistics in training; its weights are trained all the same.
        with_cp: blocks are computed again in the backward pass, which saves memory; needs norm_eval, or statistics would be
            counted twice.

    Raises:
        ValueError: naming the key, for an unknown spec, stage or count.
    """

    def __init__(
        self,
        spec: str | dict[str, Any] = 'V-99-eSE',
        out_features: Sequence[str] = ('stage4', 'stage5'),
        frozen_stages: int = -1,
        norm_eval: bool = True,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if isinstance(spec, str) and spec not in SPECS:
            raise ValueError(f'img_backbone.spec={spec!r}: there are {", ".join(SPECS)}, or a dict of their numbers')
        sizes = SPECS[spec] if isinstance(spec, str) else VoVSpec(**spec)
        stages = [f'stage{_FIRST_STAGE + i}' for i in range(len(sizes.blocks))]
        if not out_features or any(name not in ('stem', *stages) for name in out_features):
            raise ValueError(f'img_backbone.out_features must be among stem, {", ".join(stages)}, got {list(out_features)}')
        if not -1 <= frozen_stages <= len(stages):
            raise ValueError(f'img_backbone.frozen_stages must lie within -1 to {len(stages)}, got {frozen_stages}')
        if with_cp and not norm_eval:
            raise ValueError('img_backbone.with_cp=True needs norm_eval=True: the second pass would count statistics twice')
        self.out_features, self.frozen_stages, self.norm_eval = tuple(out_features), frozen_stages, norm_eval
        first, second, third = sizes.stem_channels
        self.stem = _sequence({**_conv_norm('stem_1', 3, first, stride=2), **_conv_norm('stem_2', first, second),
                               **_conv_norm('stem_3', second, third, stride=2)})
        self.stages = stages[:max(stages.index(name) + 1 if name in stages else 0 for name in out_features)]
        """The stages that are needed."""
        width = third
        for index, name in enumerate(self.stages):
            self.add_module(name, _stage(name, width, sizes, index, with_cp))
            width = sizes.out_channels[index]
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(V, 3, H, W) -> the features of `out_features`."""
        features = self.stem(images)
        found = {'stem': features}
        for name in self.stages:
            features = found[name] = getattr(self, name)(features)
        return tuple(found[name] for name in found if name in self.out_features)

    def train(self, mode: bool = True) -> VoVNet:
        """As usual, but frozen stages and, with norm_eval, all BatchNorm stay in eval mode."""
        super().train(mode)
        if mode and self.norm_eval:
            for part in self.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        if mode:
            self._freeze()
        return self

    def _freeze(self) -> None:
        for name in ('stem', *self.stages)[:self.frozen_stages + 1]:
            getattr(self, name).eval().requires_grad_(False)


def _stage(name: str, in_channels: int, sizes: VoVSpec, index: int, with_cp: bool) -> nn.Sequential:
    """Half the resolution, but for the first stage, then blocks; all but the first add their input."""
    channels, out_channels = sizes.block_channels[index], sizes.out_channels[index]
    parts: dict[str, nn.Module] = {} if index == 0 else {'Pooling': nn.MaxPool2d(3, 2, ceil_mode=True)}
    for block in range(sizes.blocks[index]):
        block_name = f'OSA{name.removeprefix("stage")}_{block + 1}'
        parts[block_name] = OneShotBlock(
            block_name, out_channels if block else in_channels, channels, out_channels, sizes.layers, block > 0, with_cp)
    return _sequence(parts)
