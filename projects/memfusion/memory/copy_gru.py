"""Slot `temporal`. In: BEV features (B, C, H, W), observed cells. Out: BEV into which a recurrent map is copied; losses.

The copying start of CopyMemory, the state of a convolutional GRU: one map, moved with the ego, that forgets nothing by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import constant_init
from torch import Tensor, nn

from projects.memfusion.structures import FrameBatch, Readout, SceneFeatures, SceneTruth

from .baselines import ConvGRUFusion, RecurrentState
from .cell_cues import CopyGate, copy_into
from .cell_values import build_value

OPEN = 5.0
"""Logit of a cell's update at the start: what holds a point is overwritten (0.993), what holds none stays (0.007 a frame)."""


@MODELS.register_module()
class CopyGRU(ConvGRUFusion):
    """A convolutional GRU that starts as a map of what was last seen in each cell.

    The hidden state is [values, share]: values are a fixed projection fitted to the features, and share, 0..1, says how much of
    a cell was ever observed. At the start observed cells are overwritten and others stay; update, reset and candidate learn
    from there. Where nothing is observed now what the state holds stands in for the features, as in CopyMemory.

    Args:
        in_channels: C.
        hidden_dim: channels of the values.
        point_cloud_range, alpha, align: as in TemporalSlot.
    """

    def __init__(self, in_channels: int, point_cloud_range: Sequence[float], hidden_dim: int = 32, alpha: float = 1.0,
                 align: str = 'network', init_cfg: dict | None = None) -> None:
        super().__init__(in_channels, point_cloud_range, hidden_dim, alpha, align, init_cfg)
        self.state_dim = hidden_dim + 1
        self.reduce: Any = build_value('projection', in_channels, hidden_dim)
        seen = 2 * hidden_dim + 2  # [values now, values then, observed, share]
        self.gates, self.candidate = (nn.Conv2d(seen, width, 3, padding=1) for width in (hidden_dim + 1, hidden_dim))
        for layer in (self.gates, self.candidate):
            constant_init(layer, 0.0)
        self.gates.weight.data[0, -2, 1, 1] = 2 * OPEN
        nn.init.constant_(self.gates.bias.data[:1], -OPEN)  # type: ignore[union-attr]
        self.gate = CopyGate(in_channels)

    def fit_values(self, features: Tensor) -> None:
        """Fits the projection to BEV features (N, C) of single cells."""
        self.reduce.fit(features)

    def read(self, state: RecurrentState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """bev (B, C, H, W) -> bev + alpha * (what the state copies + a projection of the next state, which starts at zero).

        Raises:
            ValueError: where the model has no LiDAR.
        """
        del frames
        if features.observed is None:
            raise ValueError('temporal=CopyGRU needs to know which cells hold points: the model has no LiDAR')
        bev = features.needed_bev
        observed, current = features.observed.to(bev.dtype), self.reduce(bev)
        hidden, share = state.hidden.to(bev.dtype).split([self.hidden_dim, 1], dim=1)
        gate = self.alpha * self.gate(torch.cat([bev, observed], dim=1))
        copied = copy_into(bev, self.reduce, hidden, share, gate)
        update, reset = self.gates(torch.cat([current, hidden, observed, share], dim=1)).sigmoid().split(
            [1, self.hidden_dim], dim=1)
        change = self.candidate(torch.cat([current, reset * hidden, observed, share], dim=1))
        hidden = hidden + update * (observed * current + change - hidden)
        share = share + update * (observed - share)
        return Readout(torch.add(copied, self.proj(hidden), alpha=self.alpha), carried=torch.cat([hidden, share], dim=1))

    def loss(self, readout: Readout, features: SceneFeatures, truth: SceneTruth) -> dict[str, Tensor]:
        """What the projection learns by itself."""
        del readout, truth
        return self.reduce.loss(features.needed_bev)
