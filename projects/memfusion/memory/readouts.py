"""Readouts. In: BEV (B, C, H, W), decoded memory (B, D, Hm, Wm), occupancy logits (B, 1, Hm, Wm). Out: BEV that remembers.

Every readout returns `bev` itself, bit for bit, where alpha is 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, constant_init
from torch import Tensor, nn


def resize(tensor: Tensor, shape: torch.Size | tuple[int, int]) -> Tensor:
    """(B, C, Hm, Wm) -> (B, C, H, W), bilinear."""
    return F.interpolate(tensor, size=tuple(shape), mode='bilinear', align_corners=False)


def gate_bev(bev: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
    """`bev * (1 - alpha + alpha * sigmoid(occ_logits))`, the logits resized to the BEV; alpha = 1 is the pure gate."""
    return bev * (1 - alpha + alpha * resize(occ_logits, bev.shape[-2:]).sigmoid())


def spread_cells(in_channels: int, out_channels: int, upscale: int) -> nn.Sequential:
    """(B, Cin, h, w) -> (B, Cout, h * upscale, w * upscale), every fine cell with weights of its own."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels * upscale ** 2, 1), nn.PixelShuffle(upscale), nn.ReLU(inplace=True))


class BEVReadout(BaseModule):
    """How memory changes the features.

    Args:
        in_channels: C of the BEV features; the slot fills it in.
        decoded_channels: D of the decoded memory; the slot fills it in.
        upscale: BEV cells per decoded cell along each axis; the slot fills it in.
    """

    def __init__(self, in_channels: int, decoded_channels: int, upscale: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.in_channels, self.decoded_channels, self.upscale = in_channels, decoded_channels, upscale

    def forward(self, bev: Tensor, decoded: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
        """bev (B, C, H, W), decoded (B, D, Hm, Wm), occ_logits (B, 1, Hm, Wm) -> (B, C, H, W)."""
        raise NotImplementedError

    def heat(self, occ_logits: Tensor, shape: torch.Size | tuple[int, int], alpha: float) -> Tensor | None:
        """(B, 1, H, W) to add to the logits of heat maps of this shape; nothing by default."""
        del occ_logits, shape, alpha
        return None


@MODELS.register_module()
class GateReadout(BEVReadout):
    """Lets remembered occupancy scale the current features; it can only multiply, never add evidence."""

    def forward(self, bev: Tensor, decoded: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
        """As BEVReadout.forward; a gate has no use for the decoded features."""
        del decoded
        return gate_bev(bev, occ_logits, alpha)


@MODELS.register_module()
class LogOddsReadout(BEVReadout):
    """A gate on evidence instead of features: the head's heat-map logits plus `alpha` times those of occupancy, as independent
    witnesses add up in log-odds. It can raise as well as lower, also where the frame has no points; boxes' numbers are the
    frame's own."""

    def forward(self, bev: Tensor, decoded: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
        """As BEVReadout.forward: bev itself."""
        del decoded, occ_logits, alpha
        return bev

    def heat(self, occ_logits: Tensor, shape: torch.Size | tuple[int, int], alpha: float) -> Tensor:
        """As BEVReadout.heat: alpha times the logits, resized."""
        return alpha * resize(occ_logits, shape)


@MODELS.register_module()
class ResidualReadout(BEVReadout):
    """Adds the projected decoder feature: `bev + alpha * proj(decoded)`.

    Memory cells are larger than BEV cells, and the head places boxes by single BEV cells, so each memory cell is spread
    over its BEV cells by a sub-pixel convolution (Shi et al., CVPR 2016) before the projection. The projection starts at
    zero, so training starts from the plain detector.

    Args:
        in_channels, decoded_channels: as in BEVReadout.
        hidden_channels: channels between the two convolutions.
        upscale: BEV cells per decoded cell along each axis; the slot fills it in.
    """

    def __init__(self, in_channels: int, decoded_channels: int, upscale: int, hidden_channels: int = 32,
                 init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, decoded_channels, upscale, init_cfg)
        self.spread = spread_cells(decoded_channels, hidden_channels, upscale)
        self.proj = nn.Conv2d(hidden_channels, in_channels, 3, padding=1)
        constant_init(self.proj, 0.0)

    def forward(self, bev: Tensor, decoded: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
        """As BEVReadout.forward; the logits have their own loss and are not used here."""
        del occ_logits
        return bev + alpha * self.proj(self.spread(decoded))


@MODELS.register_module()
class ConcatReadout(BEVReadout):
    """A convolution over [bev, decoded], blended with bev by alpha. It starts as the identity of bev.

    Args:
        in_channels, decoded_channels, hidden_channels, upscale: as in ResidualReadout, whose spreading it shares.
    """

    def __init__(self, in_channels: int, decoded_channels: int, upscale: int, hidden_channels: int = 32,
                 init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, decoded_channels, upscale, init_cfg)
        self.spread = spread_cells(decoded_channels, hidden_channels, upscale)
        self.conv = nn.Conv2d(in_channels + hidden_channels, in_channels, 3, padding=1)
        constant_init(self.conv, 0.0)
        with torch.no_grad():
            self.conv.weight[:, :in_channels, 1, 1] = torch.eye(in_channels)

    def forward(self, bev: Tensor, decoded: Tensor, occ_logits: Tensor, alpha: float) -> Tensor:
        """As BEVReadout.forward; the logits have their own loss and are not used here."""
        del occ_logits
        return (1 - alpha) * bev + alpha * self.conv(torch.cat([bev, self.spread(decoded)], dim=1))
