"""FuTr++, stage select. In: BEV (V, C, H, W). Out: ActiveCells, the few cells that ask the cameras."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from projects.memfusion.losses.fusion_losses import center_focal_loss

from .cell_layouts import even_ranks, seen_cells
from .fusion_layer import FusionTruth
from .fusion_state import ActiveCells, FusionState, check_kind

KINDS = ('all', 'random', 'anchor', 'geometric', 'heatmap', 'occupancy', 'learned')
_RARE = -2.19  # sigmoid is 0.1: centres are rare (Lin et al., ICCV 2017)


class CellSelection(nn.Module):
    """Chooses the active cells; always the same number for every frame.

    Args:
        bev_channels: C.
        point_cloud_range: of the BEV, metres.
        kind: 'all'; 'random', the same random cells for every frame in eval mode; 'anchor', fixed cells spread evenly over the
            map; 'geometric', cells spread evenly over what the cameras see, and over the rest where that is less than asked
            for; 'heatmap', the highest cells of a centre heatmap, which learns from box centres only; 'occupancy', those where
            the LiDAR BEV has the largest norm over its channels, which stands for occupancy; 'learned', as 'heatmap', and the
            score multiplies the update, so that the detection loss teaches it too.
        active_ratio: share of the cells that is active; 0.05 to 0.2 is sensible.
        random_share: share of the active cells that is drawn at random in training (of the ranked kinds), so that cells with
            low scores are tried as well.
        hidden_channels: of the heatmap branch.
        loss_weight: of the heatmap loss.
        heights_m: for 'geometric', at which a cell's centre may be seen.
    """

    def __init__(self, bev_channels: int, point_cloud_range: Sequence[float], kind: str = 'learned', active_ratio: float = 0.1,
                 random_share: float = 0.1, hidden_channels: int = 32, loss_weight: float = 1.0,
                 heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5)) -> None:
        super().__init__()
        check_kind('select', kind, KINDS)
        if not 0.0 < active_ratio <= 1.0 or not 0.0 <= random_share < 1.0:
            raise ValueError('fusion_layer.select: active_ratio must lie in (0, 1] and random_share in [0, 1), got '
                             f'{active_ratio} and {random_share}')
        self.kind, self.active_ratio, self.random_share = kind, active_ratio, random_share
        self.loss_weight = loss_weight
        self.point_cloud_range, self.heights_m = tuple(point_cloud_range), tuple(heights_m)
        if kind in ('heatmap', 'learned'):
            last = nn.Conv2d(hidden_channels, 1, 1)
            nn.init.constant_(last.get_parameter('bias'), _RARE)
            self.reduce = nn.Linear(bev_channels, hidden_channels)
            self.heatmap = nn.Sequential(
                nn.ReLU(), nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1), nn.ReLU(), last)

    def forward(self, state: FusionState) -> ActiveCells:
        """The cells of each frame, in the order of the grid."""
        if self.kind == 'all':
            return ActiveCells(index=None)
        frames, _, height, width = state.bev.shape
        if self.kind == 'random':
            if self.training:
                rank = torch.rand(frames, height * width, device=state.bev.device)
            else:  # the same on every device
                rank = torch.rand(1, height * width, generator=torch.Generator().manual_seed(0))
                rank = rank.to(state.bev.device, non_blocking=True).expand(frames, -1)
            return ActiveCells(self._choose(rank, num_random=0))
        if self.kind in ('anchor', 'geometric'):
            return ActiveCells(self._choose(self._evenly(state), num_random=0))
        count = self._count(height * width)
        num_random = round(self.random_share * count) if self.training else 0
        if self.kind == 'occupancy':
            return ActiveCells(self._choose(state.bev_lidar.detach().float().norm(dim=1).flatten(1), num_random))
        logits = self.logits(state.bev)
        index = self._choose(logits.detach().flatten(1), num_random)
        score = logits.flatten(1).gather(1, index).sigmoid() if self.kind == 'learned' else None
        return ActiveCells(index, score, logits)

    def _evenly(self, state: FusionState) -> Tensor:
        """(V, H * W), higher for cells that are taken earlier."""
        shape = (state.bev.shape[2], state.bev.shape[3])
        rank = -even_ranks(shape).to(state.bev.device, non_blocking=True).expand(len(state.bev), -1)
        if self.kind == 'anchor':
            return rank
        seen = seen_cells(shape, self.heights_m, self.point_cloud_range, state.calibration)
        return torch.where(seen, rank + rank.shape[1], rank)

    def logits(self, bev: Tensor) -> Tensor:
        """(V, C, H, W) -> (V, 1, H, W) float32, the centre heatmap of 'heatmap' and 'learned'."""
        # A product, for a 1x1 convolution would first copy the whole BEV into another layout.
        reduced = (self.reduce.weight @ bev.flatten(2) + self.reduce.bias[:, None]).unflatten(2, bev.shape[-2:])
        return self.heatmap(reduced).float()

    def loss(self, aux: dict[str, Tensor], truth: FusionTruth) -> dict[str, Tensor]:
        """loss_fusion_heatmap of the kinds that have a heatmap."""
        if self.kind not in ('heatmap', 'learned'):
            return {}
        return dict(loss_fusion_heatmap=self.loss_weight * center_focal_loss(aux['heatmap_logits'], truth.heatmap))

    def _count(self, cells: int) -> int:
        return max(1, round(self.active_ratio * cells))

    def _choose(self, rank: Tensor, num_random: int) -> Tensor:
        """(V, H * W) -> (V, K) int64: the highest, and `num_random` of the others."""
        chosen = rank.topk(self._count(rank.shape[1]) - num_random, dim=1).indices
        if num_random:
            lottery = torch.rand_like(rank).scatter(1, chosen, -1.0)
            chosen = torch.cat([chosen, lottery.topk(num_random, dim=1).indices], dim=1)
        return chosen.sort(dim=1).values
