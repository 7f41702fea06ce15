"""FuTr++, stage sample, reader 'deformable'. In: queries of cells. Out: image features around each cell's projected pillar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projects.geometry import sample_bilinear
from projects.geometry.projection import inside_image

from .fusion_state import FusionState, Reading


@dataclass(frozen=True)
class _Pairs:
    """M pairs of a cell and a camera that sees it, image after image: frame, camera, cell (M,) int64 each; per_image: how
    many pairs every image has, V * N numbers; uv_px (M, Z, 2) and valid (M, Z) of the pillar's points."""

    frame: Tensor
    camera: Tensor
    cell: Tensor
    per_image: list[int]
    uv_px: Tensor
    valid: Tensor


class PillarSampling(nn.Module):
    """Deformable sampling (Zhu et al., ICLR 2021) around the projections of each cell's pillar (Li et al., ECCV 2022).

    One softmax over (camera, level, height, point). Points that have no pixel in a valid camera, or whose offset leads out of
    the image, get no weight. Only pairs of a cell and a camera that sees it are computed, so cost grows with these.
    Offsets and weights come from the cell alone, so moving a map and its K by whole feature cells changes nothing.

    Args:
        dim: D of queries, tokens and values.
        img_channels: Ci.
        strides: of the levels.
        heights_m: Z heights of the pillar's points.
        num_heads: heads; must divide D.
        num_points: sampled points per head, level and height.
        radius_px: no point lies further than this from its reference, network pixels.
    """

    def __init__(self, dim: int, img_channels: int, strides: Sequence[int],
                 heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5), num_heads: int = 8, num_points: int = 8,
                 radius_px: float = 64.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'fusion_layer.dim={dim} does not divide by fusion_layer.sample.num_heads={num_heads}')
        self.strides, self.heights_m, self.radius_px = tuple(strides), tuple(heights_m), radius_px
        self.shape = (num_heads, len(self.strides), len(self.heights_m), num_points)  # heads, L, Z, P
        size = math.prod(self.shape)
        self.values = nn.ModuleList(nn.Conv2d(img_channels, dim, 1) for _ in self.strides)
        self.offsets = nn.Linear(dim, 2 * size)
        self.logits = nn.Linear(dim, size)
        self.output = nn.Linear(dim, dim)
        for part in (self.offsets, self.logits):
            nn.init.zeros_(part.weight)
        nn.init.zeros_(self.logits.bias)
        with torch.no_grad():
            self.offsets.bias.copy_(self._first_offsets().flatten())

    def forward(self, query: Tensor, cells_m: Tensor, state: FusionState) -> Reading:
        """query (V, K, D), cells_m (V, K, 2) -> Reading; trust is the attention on valid cameras times their weight."""
        pairs = self._pairs(cells_m, state)
        uv_px = pairs.uv_px[:, None, None, :, None] + self._offsets_px(query, pairs)  # (M, heads, L, Z, P, 2)
        img_hw = state.calibration.img_hw[pairs.frame, pairs.camera]
        inside = inside_image(uv_px.detach().flatten(1, -2), img_hw).unflatten(1, self.shape)
        weights = self._softmax(query, state, pairs, inside & pairs.valid[:, None, None, :, None])
        weights = weights * state.weight[pairs.frame, pairs.camera].view(-1, 1, 1, 1, 1)
        per_camera = weights.new_zeros(*state.weight.shape, query.shape[1]).index_put(
            (pairs.frame, pairs.camera, pairs.cell), weights.flatten(1).sum(1) / self.shape[0])
        features = self._read(state.maps, pairs, uv_px, weights, state.calibration.img_hw, query.shape)
        return Reading(self.output(features), per_camera.sum(1)[..., None])

    def _pairs(self, cells_m: Tensor, state: FusionState) -> _Pairs:
        frames, cells = cells_m.shape[:2]
        heights = cells_m.new_tensor(self.heights_m).view(1, 1, -1, 1).expand(frames, cells, -1, 1)
        pillars = torch.cat([cells_m[:, :, None].expand(-1, -1, heights.shape[2], -1), heights], dim=-1)
        uv_px, _, valid = state.calibration.project(pillars.flatten(1, 2))
        uv_px, valid = (part.unflatten(2, (cells, -1)) for part in (uv_px, valid))  # (V, N, K, Z, ...)
        seen = valid.any(-1)
        frame, camera, cell = seen.nonzero(as_tuple=True)
        return _Pairs(frame, camera, cell, seen.sum(-1).flatten().tolist(), uv_px[frame, camera, cell],
                      valid[frame, camera, cell])

    def _offsets_px(self, query: Tensor, pairs: _Pairs) -> Tensor:
        """(M, heads, L, Z, P, 2), at most radius_px long; the layer speaks of feature cells of each level."""
        raw = self.offsets(query)[pairs.frame, pairs.cell].float().unflatten(1, (*self.shape, 2))
        raw = raw * raw.new_tensor(self.strides).view(-1, 1, 1, 1)
        length = (raw * raw).sum(-1, keepdim=True).clamp(min=self.radius_px ** 2).sqrt()
        return raw * (self.radius_px / length)

    def _softmax(self, query: Tensor, state: FusionState, pairs: _Pairs, valid: Tensor) -> Tensor:
        """(M, heads, L, Z, P) weights that sum to 1 over all pairs of a cell, 0 where not valid."""
        logits = self.logits(query)[pairs.frame, pairs.cell].float().unflatten(1, self.shape).masked_fill(~valid, -math.inf)
        at = (pairs.frame, pairs.camera, pairs.cell)
        dense = logits.new_zeros(*state.weight.shape, query.shape[1], self.shape[0])  # (V, N, K, heads)
        highest = torch.full_like(dense, -math.inf).index_put(at, logits.detach().flatten(2).amax(-1)).amax(1)
        highest = highest.masked_fill(highest == -math.inf, 0)
        weights = (logits - highest[pairs.frame, pairs.cell][..., None, None, None]).exp()
        total = dense.index_put(at, weights.flatten(2).sum(-1)).sum(1)
        # The largest term is exp(0), so a total below 1 is one without valid points: its weights are all 0.
        return weights / total.clamp(min=1.0)[pairs.frame, pairs.cell][..., None, None, None]

    def _read(self, maps: list[Tensor], pairs: _Pairs, uv_px: Tensor, weights: Tensor, img_hw: Tensor,
              shape: torch.Size) -> Tensor:
        """(V, K, D), the weighted samples of every cell.

        Image after image: samples of one image are all that is held at a time, and an image has each cell at most once, so
        that the sums come out the same in every run.
        """
        values = [layer(feature_map.flatten(0, 1)).float().unflatten(1, (self.shape[0], -1))  # (V * N, heads, d, h, w)
                  for layer, feature_map in zip(self.values, maps)]
        total = values[0].new_zeros(shape[0] * shape[1], shape[2])
        image_wh = img_hw.flatten(0, 1).flip(-1)
        chunks = (part.split(pairs.per_image) for part in (_slots(pairs, shape), uv_px, weights))
        for image, (slot, uv, weight) in enumerate(zip(*chunks)):
            for level, value in enumerate(values if len(slot) else []):
                read = self._sample(value[image], uv[:, :, level], weight[:, :, level], self.strides[level], image_wh[image])
                total = total.index_add_(0, slot, read)
        return total.unflatten(0, shape[:2])

    @staticmethod
    def _sample(value: Tensor, uv_px: Tensor, weight: Tensor, stride: int, image_wh: Tensor) -> Tensor:
        """value (heads, d, h, w), uv_px (m, heads, Z, P, 2), weight (m, heads, Z, P) -> (m, D).

        A pixel beyond the centre of the image's last feature cell reads that cell, not what pads the image.
        """
        uv_px = uv_px.minimum(((image_wh / stride).ceil() - 0.5) * stride - 0.5)
        size = uv_px.new_tensor([value.shape[3], value.shape[2]]) * stride
        grid = ((uv_px + 0.5) * (2 / size) - 1).flatten(2, 3).transpose(0, 1)  # (heads, m, Z * P, 2)
        sampled = sample_bilinear(value, grid, 'border')  # (heads, d, m, Z * P)
        mixed = (sampled * weight.flatten(2).transpose(0, 1)[:, None]).sum(-1)
        return mixed.flatten(0, 1).transpose(0, 1)

    def _first_offsets(self) -> Tensor:
        """(heads, L, Z, P, 2): every head looks into a direction of its own, one feature cell further at each point, or less
        where the last would lie beyond the radius."""
        heads, levels, _, points = self.shape
        step = torch.tensor([min(1.0, self.radius_px / (stride * max(points - 1, 1))) for stride in self.strides])
        angle = torch.arange(heads) * (2 * math.pi / heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1).view(heads, 1, 1, 1, 2)
        return (direction * torch.arange(points).view(-1, 1) * step.view(levels, 1, 1, 1)).expand(*self.shape, 2)


def _slots(pairs: _Pairs, shape: torch.Size) -> Tensor:
    """(M,) positions of the pairs' cells in V * K; `shape` is that of the queries."""
    return pairs.frame * shape[1] + pairs.cell
