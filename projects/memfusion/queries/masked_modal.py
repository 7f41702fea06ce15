"""Queries. In: which sensors B samples have. Out: which of them training shows; the others' tokens are masked, not zeroed.

Masked-modal training of CMT (Yan et al., ICCV 2023): one model learns to do with cameras or LiDAR alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHARED_BY = ('sample', 'batch')


@dataclass(frozen=True)
class MaskedModal:
    """How often a sensor is hidden; the other one is then shown, so nobody is ever left without both.

    Attributes:
        cameras: probability that all cameras are hidden.
        lidar: probability that LiDAR is hidden.
        per: who shares the draw: 'sample', or 'batch' as published.

    Raises:
        ValueError: where the numbers are no probabilities of events that exclude each other.
    """

    cameras: float = 0.25
    lidar: float = 0.25
    per: str = 'sample'

    def __post_init__(self) -> None:
        if not (0 <= self.cameras and 0 <= self.lidar and self.cameras + self.lidar <= 1):
            raise ValueError('cameras and lidar must be probabilities that add up to at most 1, got '
                             f'{self.cameras} and {self.lidar}')
        if self.per not in SHARED_BY:
            raise ValueError(f'per must be one of {", ".join(SHARED_BY)}, got {self.per!r}')

    def draw(self, has_cameras: Tensor, has_lidar: Tensor) -> tuple[Tensor, Tensor]:
        """Which samples show their cameras and which their LiDAR, (B,) bool each; drawn from torch's generator on the host.

        Args:
            has_cameras, has_lidar: (B,) bool, what the samples have. A sensor is hidden only where there is the other one.
        """
        count = len(has_cameras)
        drawn = torch.rand(count if self.per == 'sample' else 1).expand(count)
        drawn = drawn.to(has_cameras.device, non_blocking=True)
        both = has_cameras & has_lidar
        hide_cameras = both & (drawn < self.cameras)
        hide_lidar = both & (drawn >= self.cameras) & (drawn < self.cameras + self.lidar)
        return has_cameras & ~hide_cameras, has_lidar & ~hide_lidar
