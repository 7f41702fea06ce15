"""FuTr++, stage sample, reader 'deformable'. In: queries of cells. Out: image features around each cell's projected pillar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from projects.geometry import sample_bilinear
from projects.geometry.exporting import is_exporting
from projects.geometry.projection import inside_image

from .fusion_state import FusionState, Reading

_MOST_SAMPLES = dict(cpu=1 << 21, gpu=1 << 26)
"""Numbers that are sampled at once: bounds memory. A CPU is fastest where they stay in its cache, a GPU where they fill it."""


@dataclass(frozen=True)
class Pairs:
    """S pairs of a cell and a camera that sees it, in blocks of equal length, each of one image; what fills a block up is the
    image's last pair again.

    Attributes:
        frame, camera, cell: (S,) int64.
        filled: (S,) bool, False for those that fill up.
        image: (blocks,) int64, position of each block's image in V * N.
        uv_px, valid: (S, Z, 2) and (S, Z) of the pillar's points; nothing is valid where not filled.
    """

    frame: Tensor
    camera: Tensor
    cell: Tensor
    filled: Tensor
    image: Tensor
    uv_px: Tensor
    valid: Tensor

    def of_cells(self, values: Tensor) -> Tensor:
        """(V, K, ...) of every cell -> (S, ...), those of the pairs' cells; by one index, whose backward pass is a sum."""
        return values.flatten(0, 1).index_select(0, self.frame * values.shape[1] + self.cell)


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

    heights_m: Tensor
    level_px: Tensor

    def __init__(self, dim: int, img_channels: int, strides: Sequence[int],
                 heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5), num_heads: int = 8, num_points: int = 8,
                 radius_px: float = 64.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'fusion_layer.dim={dim} does not divide by fusion_layer.sample.num_heads={num_heads}')
        self.strides, self.radius_px = tuple(strides), radius_px
        # On the device, for a copy would make the host wait.
        self.register_buffer('heights_m', torch.tensor(heights_m, dtype=torch.float32), persistent=False)
        self.register_buffer('level_px', torch.tensor(self.strides, dtype=torch.float32), persistent=False)
        self.shape = (num_heads, len(self.strides), len(heights_m), num_points)  # heads, L, Z, P
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

    def forward(self, query: Tensor, cells_m: Tensor, state: FusionState, pairs: Pairs | None = None) -> Reading:
        """query (V, K, D), cells_m (V, K, 2) -> Reading; trust is the attention on valid cameras times their weight.

        `pairs` are those of these cells, where they are made already.
        """
        pairs = self.pairs(cells_m, state) if pairs is None else pairs
        uv_px = pairs.uv_px[:, None, None, :, None] + self._offsets_px(query, pairs)  # (S, heads, L, Z, P, 2)
        img_hw = state.calibration.img_hw[pairs.frame, pairs.camera]
        inside = inside_image(uv_px.detach().flatten(1, -2), img_hw).unflatten(1, self.shape)
        weights = self._softmax(query, state, pairs, inside & pairs.valid[:, None, None, :, None])
        weights = weights * state.weight[pairs.frame, pairs.camera].view(-1, 1, 1, 1, 1)
        trust = _spread(weights.flatten(1).sum(1, keepdim=True) / self.shape[0], pairs, state, query.shape[1]).sum(1)
        features = self._read(state.maps, pairs, uv_px, weights, state.calibration.img_hw, query.shape)
        return Reading(self.output(features), trust)

    def pairs(self, cells_m: Tensor, state: FusionState) -> Pairs:
        """Which camera sees which of the cells (V, K, 2); the host waits once."""
        frames, cells = cells_m.shape[:2]
        heights = self.heights_m.to(cells_m.dtype).view(1, 1, -1, 1).expand(frames, cells, -1, 1)
        pillars = torch.cat([cells_m[:, :, None].expand(-1, -1, heights.shape[2], -1), heights], dim=-1)
        uv_px, _, valid = state.calibration.project(pillars.flatten(1, 2))
        uv_px, valid = (part.unflatten(2, (cells, -1)) for part in (uv_px, valid))  # (V, N, K, Z, ...)
        seen = valid.any(-1)
        if is_exporting():  # a graph does not know how many there are: it computes all, and those that are not seen have no say
            return _all_pairs(seen, uv_px, valid)
        counts = seen.sum(-1).flatten()
        per_image = counts.tolist()  # the one time that the host waits: how much there is to compute
        map_cells = sum(math.prod(feature_map.shape[-2:]) for feature_map in state.maps)
        size = _block_size(per_image, map_cells / math.prod(self.shape[1:]))
        position, filled, image = _blocks(seen.flatten(), counts, size, sum(-(-count // size) for count in per_image))
        pair_image = position.div(cells, rounding_mode='floor')
        frame, camera = pair_image.div(seen.shape[1], rounding_mode='floor'), pair_image % seen.shape[1]
        uv_px, valid = (part.flatten(0, 2).index_select(0, position) for part in (uv_px, valid))
        return Pairs(frame, camera, position % cells, filled, image, uv_px, valid & filled[:, None])

    def _offsets_px(self, query: Tensor, pairs: Pairs) -> Tensor:
        """(S, heads, L, Z, P, 2), at most radius_px long; the layer speaks of feature cells of each level."""
        raw = pairs.of_cells(self.offsets(query)).float().unflatten(1, (*self.shape, 2))
        level_px = self.level_px.float().view(-1, 1, 1, 1)
        length = ((raw * raw).sum(-1, keepdim=True) * level_px.square()).clamp(min=self.radius_px ** 2).sqrt()
        return raw * (level_px * (self.radius_px / length))

    def _softmax(self, query: Tensor, state: FusionState, pairs: Pairs, valid: Tensor) -> Tensor:
        """(S, heads, L, Z, P) weights that sum to 1 over all pairs of a cell, 0 where not valid."""
        logits = pairs.of_cells(self.logits(query)).float().unflatten(1, self.shape).masked_fill(~valid, -math.inf)
        highest = _spread(logits.detach().flatten(2).amax(-1), pairs, state, query.shape[1], -math.inf).amax(1)
        highest = highest.masked_fill(highest == -math.inf, 0)
        weights = (logits - pairs.of_cells(highest)[..., None, None, None]).exp()
        total = _spread(weights.flatten(2).sum(-1), pairs, state, query.shape[1]).sum(1)
        # The largest term is exp(0), so a total below 1 is one without valid points: its weights are all 0.
        return weights / pairs.of_cells(total.clamp(min=1.0))[..., None, None, None]

    def _read(self, maps: list[Tensor], pairs: Pairs, uv_px: Tensor, weights: Tensor, img_hw: Tensor,
              shape: torch.Size) -> Tensor:
        """(V, K, D), the weighted samples of every cell; as many blocks at once as memory allows."""
        values = [layer(feature_map.flatten(0, 1)).float().unflatten(1, (self.shape[0], -1))  # (V * N, heads, d, h, w)
                  for layer, feature_map in zip(self.values, maps)]
        total = values[0].new_zeros(shape[0] * shape[1], shape[2])
        if not len(pairs.image):
            return total.unflatten(0, shape[:2])
        image_wh = img_hw.flatten(0, 1).flip(-1)
        size = len(pairs.cell) // len(pairs.image)
        most = _MOST_SAMPLES['cpu' if total.device.type == 'cpu' else 'gpu']
        chunk = max(1, most // (size * math.prod(self.shape[2:]) * shape[2]))
        chunks = (part.split(chunk) for part in (
            pairs.image, *(whole.unflatten(0, (-1, size)) for whole in (uv_px, weights))))
        reads = [reduce(torch.add, (
            self._sample(value.index_select(0, image), uv[:, :, :, level], weight[:, :, :, level], stride, image_wh[image])
            for level, (value, stride) in enumerate(zip(values, self.strides)))) for image, uv, weight in zip(*chunks)]
        total = total.index_add(0, pairs.frame * shape[1] + pairs.cell, torch.cat(reads).flatten(0, 1))
        return total.unflatten(0, shape[:2])

    @staticmethod
    def _sample(value: Tensor, uv_px: Tensor, weight: Tensor, stride: int, image_wh: Tensor) -> Tensor:
        """value (B, heads, d, h, w), uv_px (B, m, heads, Z, P, 2), weight (B, m, heads, Z, P), image_wh (B, 2) -> (B, m, D).

        A pixel beyond the centre of the image's last feature cell reads that cell, not what pads the image.
        """
        uv_px = uv_px.minimum((((image_wh / stride).ceil() - 0.5) * stride - 0.5).view(-1, 1, 1, 1, 1, 2))
        share = torch.stack([uv_px.new_full((), 2 / (size * stride)) for size in (value.shape[4], value.shape[3])])
        grid = ((uv_px + 0.5) * share - 1).flatten(3, 4).transpose(1, 2)  # (B, heads, m, Z * P, 2)
        sampled = sample_bilinear(value.flatten(0, 1), grid.flatten(0, 1), 'border')  # (B * heads, d, m, Z * P)
        mixed = (sampled * weight.flatten(3).transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
        return mixed.unflatten(0, value.shape[:2]).flatten(1, 2).transpose(1, 2)

    def _first_offsets(self) -> Tensor:
        """(heads, L, Z, P, 2): every head looks into a direction of its own, one feature cell further at each point, or less
        where the last would lie beyond the radius."""
        heads, levels, _, points = self.shape
        step = torch.tensor([min(1.0, self.radius_px / (stride * max(points - 1, 1))) for stride in self.strides])
        angle = torch.arange(heads) * (2 * math.pi / heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1).view(heads, 1, 1, 1, 2)
        return (direction * torch.arange(points).view(-1, 1) * step.view(levels, 1, 1, 1)).expand(*self.shape, 2)


def _all_pairs(seen: Tensor, uv_px: Tensor, valid: Tensor) -> Pairs:
    """Every cell with every camera, (V, N, K) of them, a block for each image."""
    cameras, cells = seen.shape[1:]
    position = torch.arange(seen.numel(), device=seen.device)
    image = position.div(cells, rounding_mode='floor')
    return Pairs(image.div(cameras, rounding_mode='floor'), image % cameras, position % cells, seen.flatten(), image[::cells],
                 uv_px.flatten(0, 2), valid.flatten(0, 2))


def _block_size(per_image: list[int], map_pairs: float) -> int:
    """Pairs in a block, so that there is little to compute where images see unlike numbers of cells.

    Args:
        per_image: pairs of every image.
        map_pairs: what a block costs besides its pairs, for its image's maps are copied, in pairs.
    """
    most = max(per_image, default=0)
    sizes = {max(1, -(-most // parts)) for parts in range(1, 9)}
    return min(sizes, key=lambda size: sum(-(-count // size) for count in per_image) * (size + map_pairs))


def _blocks(seen: Tensor, counts: Tensor, size: int, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lists what is seen, image after image.

    Args:
        seen: (images * K,) bool.
        counts: (images,) how many are seen in each.
        size: of a block.
        number: of all blocks.

    Returns:
        position (number * size,) into seen, filled (number * size,) bool, image (number,), as in Pairs.
    """
    last_block = (counts + size - 1).div(size, rounding_mode='floor').cumsum(0)
    block = torch.arange(number, device=seen.device)
    image = torch.searchsorted(last_block, block, right=True)
    first = (last_block - (counts + size - 1).div(size, rounding_mode='floor'))[image]
    rank = ((block - first) * size)[:, None] + torch.arange(size, device=seen.device)  # among the pairs of the image
    before, here = (counts.cumsum(0) - counts)[image, None], counts[image, None]
    position = torch.searchsorted(seen.cumsum(0), (before + rank.minimum(here - 1) + 1).flatten())
    return position, (rank < here).flatten(), image


def _spread(values: Tensor, pairs: Pairs, state: FusionState, cells: int, default: float = 0.0) -> Tensor:
    """(S, C) of the pairs -> (V, N, K, C), `default` where a camera does not see a cell."""
    frames, cameras = state.weight.shape
    place = (pairs.frame * cameras + pairs.camera) * cells + pairs.cell
    nowhere = frames * cameras * cells  # what fills up goes there
    dense = values.new_full((nowhere + 1, values.shape[1]), default)
    dense = dense.index_put((place.where(pairs.filled, nowhere),), values)
    return dense[:-1].view(frames, cameras, cells, -1)
