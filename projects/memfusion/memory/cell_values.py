"""Stage memory: what is stored of BEV cells. In: BEV features (B, C, H, W). Out: values (B, V, H, W), and features again."""

from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from torch import Tensor, nn

from projects.geometry import full_precision
from projects.memfusion.losses.ranks import mean_over_ranks

from .bev_network import ResidualBlock

VALUES = ('bev', 'projection', 'learned', 'deep')
"""'bev': the features themselves; 'projection': a subspace that is fitted to them; 'learned': a 1x1 convolution that is trained
by the detection loss; 'deep': XMem's value path, two 3x3 convolutions beside a shortcut. The last two cannot be turned back."""


class CellValue(BaseModule):
    """The features themselves, and the base of the other kinds.

    Attributes:
        dim: V, channels of a value.
        copies: whether `decode` can turn values back into BEV features.
    """

    copies = True

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.dim = in_channels

    def forward(self, bev: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, V, H, W)."""
        return bev

    def decode(self, value: Tensor, share: Tensor) -> Tensor:
        """Sums of values (B, V, H, W) whose weights sum to `share` (B, 1, H, W) -> the same sums of features (B, C, H, W)."""
        del share
        return value

    def fit(self, features: Tensor) -> None:
        """Sets what does not learn from boxes to what suits features (N, C); nothing here."""
        del features

    def loss(self, bev: Tensor) -> dict[str, Tensor]:
        """What a kind learns by itself of features (N, C, H, W); nothing here."""
        del bev
        return {}


class ProjectedValue(CellValue):
    """Coordinates in a subspace of V dimensions that loses least of the features: `W (bev - mean)`, back by `W^T value + mean`.

    It learns from what it loses (`loss_value`) and not from the boxes, so that what is copied stays what the head knows. `fit`
    gives the best subspace at once (principal components).

    Args:
        in_channels: C.
        dim: V, at most C.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__(in_channels)
        if not 1 <= dim <= in_channels:
            raise ValueError(f"temporal.value_dim must lie in 1..{in_channels} (in_channels) for value='projection', got {dim}")
        self.dim = dim
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(dim, in_channels)))
        self.mean = nn.Parameter(torch.zeros(in_channels))

    def forward(self, bev: Tensor) -> Tensor:
        """As CellValue.forward; no gradient to weight and mean, which `loss` trains."""
        return self._project(bev, self.weight.detach(), self.mean.detach())

    def decode(self, value: Tensor, share: Tensor) -> Tensor:
        """As CellValue.decode; no gradient to weight and mean."""
        return self._back(value, share, self.weight.detach(), self.mean.detach())

    def loss(self, bev: Tensor) -> dict[str, Tensor]:
        """loss_value: the squares of what the subspace loses, by those of the features around their mean in all ranks."""
        bev = bev.detach().float()
        value = self._project(bev, self.weight, self.mean)
        lost = (self._back(value, torch.ones_like(bev[:, :1]), self.weight, self.mean) - bev).square().sum()
        spread = (bev - self.mean.detach().view(1, -1, 1, 1)).square().sum()
        return dict(loss_value=lost / mean_over_ranks(spread).clamp(min=1e-6 / get_world_size()))

    @torch.no_grad()
    @full_precision
    def fit(self, features: Tensor) -> None:
        """Sets the subspace to the principal components of features (N, C)."""
        features = features.double()
        mean = features.mean(dim=0)
        centred = features - mean
        axes = torch.linalg.eigh(centred.T @ centred).eigenvectors  # rising
        self.mean.copy_(mean)
        self.weight.copy_(axes[:, -self.dim:].flip(1).T)

    @staticmethod
    def _project(bev: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
        return nn.functional.conv2d(bev, weight[..., None, None], -(weight @ mean))

    @staticmethod
    def _back(value: Tensor, share: Tensor, weight: Tensor, mean: Tensor) -> Tensor:
        back = torch.cat([weight.T, mean[:, None]], dim=1)  # the mean as one more channel: no pass over features of its own
        return nn.functional.conv2d(torch.cat([value, share.to(value.dtype)], dim=1), back[..., None, None])


class LearnedValue(CellValue):
    """A 1x1 convolution, or XMem's deep value path without masks; trained by what comes after it.

    Args:
        in_channels, dim: C and V.
        deep: whether it is XMem's path.
    """

    copies = False

    def __init__(self, in_channels: int, dim: int, deep: bool) -> None:
        super().__init__(in_channels)
        self.dim = dim
        self.encoder = ResidualBlock(in_channels, dim) if deep else nn.Conv2d(in_channels, dim, 1)

    def forward(self, bev: Tensor) -> Tensor:
        """As CellValue.forward."""
        return self.encoder(bev)

    def decode(self, value: Tensor, share: Tensor) -> Tensor:
        """Raises ValueError: what was learned freely cannot be turned back."""
        raise ValueError(f'values of {type(self).__name__} cannot be copied into BEV features')


def build_value(kind: str, in_channels: int, dim: int) -> CellValue:
    """The kind of that name in VALUES; ValueError for another."""
    if kind not in VALUES:
        raise ValueError(f'temporal.value must be one of {VALUES}, got {kind!r}')
    if kind == 'bev':
        return CellValue(in_channels)
    if kind == 'projection':
        return ProjectedValue(in_channels, dim)
    return LearnedValue(in_channels, dim, deep=kind == 'deep')
