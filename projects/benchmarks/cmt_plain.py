"""Benchmark, CMT's head in plain torch, in the published order. In: features, lidar2img. Out: what every step leaves behind.

Written from the paper's description (Yan et al., ICCV 2023): every point at every depth is made, a query's pixel is lifted
again in every camera, branches are grouped convolutions, all layers are read. Parameters have the names of CMTHead; what the
published code does oddly is done here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BRANCHES = dict(center=2, height=1, dim=3, rot=2, vel=2)
_NEAR, _NORM_EPS, _SIGMOID_EPS = 1e-6, 1e-6, 1e-5


@dataclass(frozen=True)
class PlainSizes:
    """E, learned queries, D, layers, heads, hidden widths of the feed-forward layers and of the branches, classes, and channels
    of the BEV features (None for cameras only)."""

    dim: int = 256
    num_queries: int = 900
    num_depths: int = 64
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 1024
    branch_dim: int = 64
    num_classes: int = 10
    bev_channels: int | None = None
    pc_range: Sequence[float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)


class PlainLayer(nn.Module):
    """Self-attention, which makes its weights, norm, cross-attention, which does not, norm, feed-forward, norm."""

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(sizes.dim, sizes.num_heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(sizes.dim, sizes.num_heads, batch_first=True)
        self.ffn = nn.ModuleDict(dict(
            expand=nn.Linear(sizes.dim, sizes.ffn_dim), reduce=nn.Linear(sizes.ffn_dim, sizes.dim)))
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.dim) for _ in range(3))

    def forward(self, queries: Tensor, places: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, Q, E) -> the same."""
        asking = queries + places
        queries = self.norms[0](queries + self.self_attn(asking, asking, queries)[0])
        queries = self.norms[1](queries + self.cross_attn(queries + places, keys, values, need_weights=False)[0])
        return self.norms[2](queries + self.ffn['reduce'](self.ffn['expand'](queries).relu()))


class PlainNorm(nn.Module):
    """A norm over the channels of each layer and query."""

    def __init__(self, num_layers: int, dim: int) -> None:
        super().__init__()
        self.num_layers = num_layers
        self.weight, self.bias = nn.Parameter(torch.ones(num_layers * dim)), nn.Parameter(torch.zeros(num_layers * dim))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L * C, Q) -> the same."""
        parts = hidden.unflatten(1, (self.num_layers, -1))
        mean, variance = parts.mean(2, keepdim=True), parts.var(2, keepdim=True, unbiased=False)
        parts = (parts - mean) / (variance + _NORM_EPS).sqrt()
        return parts.flatten(1, 2) * self.weight[:, None] + self.bias[:, None]


class PlainCMT(nn.Module):
    """The head, in eval mode.

    Args:
        sizes: as there.
    """

    def __init__(self, sizes: PlainSizes) -> None:
        super().__init__()
        self.sizes, dim, layers = sizes, sizes.dim, sizes.num_layers
        if sizes.bev_channels is not None:
            conv = nn.Conv2d(sizes.bev_channels, dim, 3, padding=1, bias=False)
            self.shared_conv = nn.Sequential()
            self.shared_conv.add_module('conv', conv)
            self.shared_conv.add_module('bn', nn.BatchNorm2d(dim))
        self.decoder = nn.ModuleDict(dict(
            layers=nn.ModuleList(PlainLayer(sizes) for _ in range(layers)), post_norm=nn.LayerNorm(dim)))
        self.reference_points = nn.Embedding(sizes.num_queries, 3)
        self.bev_embedding = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.rv_embedding = nn.Sequential(nn.Linear(3 * sizes.num_depths, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        self.task_heads = nn.ModuleDict({
            name: nn.Sequential(
                nn.Conv1d(layers * dim, layers * sizes.branch_dim, 1, groups=layers, bias=False),
                PlainNorm(layers, sizes.branch_dim), nn.ReLU(),
                nn.Conv1d(layers * sizes.branch_dim, layers * width, 1, groups=layers))
            for name, width in {**BRANCHES, 'cls_logits': sizes.num_classes}.items()})

    def forward(self, img_feats: Tensor, img_from_lidar: Tensor, pad_hw: tuple[int, int],
                bev_feats: Tensor | None = None) -> dict[str, Tensor]:
        """Everything, by the names of the published arrays.

        Args:
            img_feats: (B, V, E, h, w).
            img_from_lidar: (B, V, 4, 4) float64.
            pad_hw: height and width of the padded images.
            bev_feats: (B, C, H, W).
        """
        found = self.embed(img_feats.shape[-2:], img_from_lidar, pad_hw, bev_feats)
        tokens = [img_feats.permute(0, 1, 3, 4, 2).flatten(1, 3)]
        places = [found['img_pe'].unflatten(0, img_from_lidar.shape[:2]).flatten(1, 3)]
        if bev_feats is not None:
            tokens.insert(0, found['bev_shared_conv'].flatten(2).transpose(1, 2))
            places.insert(0, found['bev_pe'].expand_as(tokens[0]))
        values, where = torch.cat(tokens, 1), torch.cat(places, 1)
        queries, steps = torch.zeros_like(found['query_embed']), []
        for layer in self.decoder['layers'].children():
            queries = layer(queries, found['query_embed'], values + where, values)
            steps.append(self.decoder['post_norm'](queries))
        decoded = torch.stack(steps)
        return {**found, 'memory_tokens': values.transpose(0, 1), 'decoder': decoded, **self.read(decoded)}

    def embed(self, size: Sequence[int], img_from_lidar: Tensor, pad_hw: tuple[int, int],
              bev_feats: Tensor | None = None) -> dict[str, Tensor]:
        """Where image cells, BEV cells and queries are."""
        batch = len(img_from_lidar)
        lidar_from_img = torch.linalg.inv(img_from_lidar).float()
        coords = self.cell_points(size, lidar_from_img, pad_hw)
        references = self.reference_points.weight.expand(batch, -1, -1)
        ray_coords, seen = self.query_points(references, img_from_lidar.float(), lidar_from_img, pad_hw)
        ray_embed = (self.rv_embedding(ray_coords) * seen[..., None]).sum(1)
        bev_sine = self.sine(references[..., :2])
        bev_embed = self.bev_embedding(bev_sine)
        found = dict(
            img_pe_coords=coords, img_pe=self.rv_embedding(coords), query_ray_coords=ray_coords, query_visible=seen,
            query_ray_embed=ray_embed, query_bev_sine=bev_sine, query_bev_embed=bev_embed, query_embed=bev_embed + ray_embed)
        if bev_feats is not None:
            shared = self.shared_conv(bev_feats).relu()
            cells, cell_sine = self.bev_cells(shared.shape[2:], shared.device)
            found.update(bev_shared_conv=shared, bev_coords=cells, bev_pe_sine=cell_sine, bev_pe=self.bev_embedding(cell_sine))
        return found

    def bev_cells(self, size: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """(H * W, 2) centres of the BEV's cells as parts of the range, row by row, and their sines (H * W, 2 E)."""
        y, x = torch.meshgrid(*(torch.arange(count, device=device) for count in size), indexing='ij')
        cells = torch.stack([(x + 0.5) / size[1], (y + 0.5) / size[0]], dim=-1).flatten(0, 1)
        return cells, self.sine(cells)

    def cell_points(self, size: Sequence[int], lidar_from_img: Tensor, pad_hw: tuple[int, int]) -> Tensor:
        """(B * V, h, w, 3 D): the points of every cell at every depth, as shares of the range."""
        (height, width), device = size, lidar_from_img.device
        v = torch.arange(height, device=device).float() * pad_hw[0] / height
        u = torch.arange(width, device=device).float() * pad_hw[1] / width
        coords = torch.stack(torch.meshgrid(v, u, self.depths_m(device), indexing='ij'), dim=-1)
        coords = torch.cat([coords[..., [1, 0]] * coords[..., 2:], coords[..., 2:], torch.ones_like(coords[..., :1])], dim=-1)
        points = torch.einsum('hwdo,bvco->bvhwdc', coords, lidar_from_img)[..., :3]
        return self.shares(points).flatten(-2).flatten(0, 1)

    def query_points(self, references: Tensor, img_from_lidar: Tensor, lidar_from_img: Tensor,
                     pad_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, V, Q, 3 D) points of every query's pixel in every camera, and whether the camera sees it, (B, V, Q)."""
        low, high = references.new_tensor(self.sizes.pc_range).split(3)
        points = F.pad(references * (high - low) + low, (0, 1), value=1.0)
        pixels = torch.einsum('bnd,bvcd->bvnc', points, img_from_lidar)
        depth = pixels[..., 2:3]
        pixels = pixels[..., :3] / (depth + torch.where(depth > 0, _NEAR, -_NEAR))
        u, v = pixels[..., 0], pixels[..., 1]
        seen = (depth[..., 0] > 0) & (u >= 0) & (u < pad_hw[1]) & (v >= 0) & (v < pad_hw[0])
        lifted = pixels[..., None, :] * self.depths_m(points.device)[:, None]
        lifted = F.pad(lifted, (0, 1), value=1.0)
        back = torch.einsum('bvndo,bvco->bvndc', lifted, lidar_from_img)[..., :3]
        return self.shares(back).flatten(-2), seen

    def depths_m(self, device: torch.device) -> Tensor:
        """(D,)."""
        steps = torch.arange(self.sizes.num_depths, device=device).float()
        return 1 + steps * (self.sizes.pc_range[3] - 1) / self.sizes.num_depths

    def shares(self, points: Tensor) -> Tensor:
        """(..., 3) metres -> parts of the range."""
        low, high = points.new_tensor(self.sizes.pc_range).split(3)
        return (points - low) / (high - low)

    def sine(self, places: Tensor) -> Tensor:
        """(..., 2) -> (..., 2 E), y first."""
        steps = torch.arange(self.sizes.dim, device=places.device, dtype=torch.float32)
        divisor = 2 * torch.div(steps, 2, rounding_mode='floor') / self.sizes.dim + 1
        parts = []
        for axis in (1, 0):
            angle = (places[..., axis, None] * (2 * math.pi)) / divisor
            parts.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-2))
        return torch.cat(parts, dim=-1)

    def read(self, decoded: Tensor) -> dict[str, Tensor]:
        """(L, B, Q, E) -> head_* (L, B, Q, n); centres in metres, what is called height in those of z."""
        by_channel = decoded.permute(1, 0, 3, 2).flatten(1, 2)
        found = {name: branch(by_channel).unflatten(1, (len(decoded), -1)).permute(1, 0, 3, 2)
                 for name, branch in self.task_heads.named_children()}
        low, high = decoded.new_tensor(self.sizes.pc_range).split(3)
        share = self.reference_points.weight.clamp(0, 1)
        logit = torch.log(share.clamp(min=_SIGMOID_EPS) / (1 - share).clamp(min=_SIGMOID_EPS))
        found['center'] = (found['center'] + logit[:, :2]).sigmoid() * (high - low)[:2] + low[:2]
        found['height'] = (found['height'] + logit[:, 2:]).sigmoid() * (high - low)[2:] + low[2:]
        return {f'head_{name}': value for name, value in found.items()}
