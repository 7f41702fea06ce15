"""Queries. In: image features of some frames and their rigs. Out: a position embedding of every feature cell (PETRv2).

    viewing ray -> points at D depths, as shares of a range -> inverse sigmoid -> two layers     where the cell looks
    times sigmoid(two layers of the features)                                                    weighed by what it shows
    plus two layers of the sine of (frame, row, column)                                          where it is in the images

PETR (Liu et al., ECCV 2022), PETRv2 (Liu et al., ICCV 2023). The 3 D numbers of a cell and the wide layer behind them exist for
some views at a time only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.common.settings import read_settings
from projects.encodings.depths import make_depths
from projects.encodings.frustum import FeatureGate, FrustumEncoder, inverse_sigmoid
from projects.encodings.rig_cache import RigCache
from projects.geometry.precision import full_precision
from projects.geometry.views import Views, cell_pixels
from projects.memfusion.structures import Calibration

from .by_parts import by_parts
from .image_tokens import shown_cells
from .petrv2_sine import ImageSine

GEOMETRIES = ('frustum', 'ray', 'none')


@dataclass(frozen=True)
class DepthSettings:
    """Depths along a ray: 'lid' or 'linear', how many, and the first one in metres, see make_depths."""

    kind: str = 'lid'
    num: int = 64
    start_m: float = 1.0


@dataclass(frozen=True)
class EmbeddingSettings:
    """How image cells are told apart.

    Attributes:
        depths: settings of DepthSettings; they end before the range's largest x.
        position_range: x, y, z low and then high, metres, what the points are shares of.
        multiview: whether the sine tells frames apart, not only rows and columns.
        gate: whether the features weigh the embedding.
        geometry: what of the camera is embedded. 'frustum', points along each cell's ray; 'ray', where it starts and its
            direction; 'none', nothing, for encodings by which the attention knows cameras.
    """

    depths: Mapping[str, Any] | None = None
    position_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    multiview: bool = True
    gate: bool = True
    geometry: str = 'frustum'

    def __post_init__(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise ValueError(f'geometry must be one of {", ".join(GEOMETRIES)}, got {self.geometry!r}')
        if len(self.position_range) != 6 or any(a >= b for a, b in zip(self.position_range, self.position_range[3:])):
            raise ValueError(f'position_range must be x, y, z low and then high, got {list(self.position_range)}')
        self.depths_m()

    def depths_m(self) -> Tensor:
        """(D,) float64; ValueError for settings that give none."""
        said = read_settings(DepthSettings, self.depths, 'depths')
        return make_depths(said.kind, said.num, said.start_m, self.position_range[3])


class ImageEmbedding(nn.Module):
    """Position embeddings of the feature cells of all frames' cameras.

    Args:
        dim: E.
        settings: as there.
        quirks: corner_cells, matrix_pixels and counted_views, see PETRv2.
    """

    depths_m: Tensor
    low: Tensor
    span: Tensor

    def __init__(self, dim: int, settings: EmbeddingSettings, quirks: frozenset[str] = frozenset()) -> None:
        super().__init__()
        low, high = list(settings.position_range[:3]), list(settings.position_range[3:])
        depths_m = settings.depths_m()
        self.register_buffer('depths_m', depths_m.float(), persistent=False)
        self.register_buffer('low', torch.tensor(low, dtype=torch.float32), persistent=False)
        self.register_buffer('span', torch.tensor(high) - torch.tensor(low), persistent=False)
        self.offset, self.shift_px = 0.0 if 'corner_cells' in quirks else 0.5, 0.5 if 'matrix_pixels' in quirks else 0.0
        self.geometry = settings.geometry
        if self.geometry != 'none':
            self.frustum = FrustumEncoder(len(depths_m) if self.geometry == 'frustum' else 2, dim)
        self.gate = FeatureGate(dim) if settings.gate and self.geometry != 'none' else None
        self.sine = ImageSine(dim, settings.multiview, 'counted_views' in quirks)
        self._looks: list[RigCache] = []

    def forward(self, features: Sequence[Tensor], rigs: Sequence[Calibration],
                level_shape: tuple[int, int]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Embeddings, and which cells lie in an image.

        Args:
            features: (B, N, h * w, E) of each frame, newest first.
            rigs: of the frames, all as seen from the newest.
            level_shape: h, w.

        Returns:
            (B, N, h * w, E) each; (B, N, h, w) bool each, None where all cells do.
        """
        shown = [self.shown(rig, level_shape) for rig in rigs]
        sines = self.sine(shown, [len(rig.cam_names) for rig in rigs], level_shape)
        embeddings = []
        for age, (feature, rig, sine) in enumerate(zip(features, rigs, sines)):
            if self.geometry == 'none':
                embeddings.append(sine.expand_as(feature))
                continue
            embedding = self.gated(self.looks(rig, level_shape, age), feature)
            own = self.gate is not None and not torch.is_grad_enabled()  # nobody else holds it
            embeddings.append(embedding.add_(sine) if own else embedding + sine)
        return embeddings, shown

    def forget(self) -> None:
        """Drops what is kept of rigs."""
        self._looks, self.sine.kept = [], None

    def shown(self, rig: Calibration, level_shape: tuple[int, int]) -> Tensor | None:
        """(B, N, h, w) bool; None: all."""
        return shown_cells(rig, level_shape, self.offset)

    def looks(self, rig: Calibration, level_shape: tuple[int, int], age: int = 0) -> Tensor:
        """(B, N, h * w, E) from the frustums alone; in eval mode computed once for a rig that stays.

        Args:
            rig: as seen from the newest frame.
            level_shape: h, w.
            age: number of the frame, newest first: each has its own rig.
        """
        self._looks += [RigCache() for _ in range(age + 1 - len(self._looks))]
        views = rig.views()
        return self._looks[age].get(views, lambda: self._encode(views, level_shape), self.frustum, key=level_shape)

    def gated(self, looks: Tensor, features: Tensor) -> Tensor:
        """Both (B, N, h * w, E) -> the same, weighed by the features."""
        if self.gate is None:
            return looks
        parts = by_parts(self.gate, looks.shape[2], looks.flatten(0, 1), features.flatten(0, 1))
        return parts.view_as(looks)

    @full_precision
    def lines(self, views: Views, level_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Start (B, N, 1, 3) and slope (B, N, h * w, 3): start + depth_m * slope is a point as shares of the range."""
        uv_px = cell_pixels(level_shape, views.padded_hw, self.offset, views.cam_from_img.device).flatten(0, 1) + self.shift_px
        origins, directions = views.rays_at(uv_px.expand(*views.cam_from_img.shape[:2], -1, -1))
        return ((origins - self.low) / self.span)[:, :, None], directions / self.span

    @full_precision
    def shares(self, start: Tensor, slope: Tensor) -> Tensor:
        """(..., D, 3) of `lines`: the points as shares of the range, not clamped."""
        return torch.addcmul(start[..., None, :], slope[..., None, :], self.depths_m[:, None])

    def _encode(self, views: Views, level_shape: tuple[int, int]) -> Tensor:
        start, slope = self.lines(views, level_shape)
        flat = by_parts(self._encode_views, slope.shape[2], start.flatten(0, 1), slope.flatten(0, 1))
        return flat.unflatten(0, slope.shape[:2])

    def _encode_views(self, start: Tensor, slope: Tensor) -> Tensor:
        """(V, 1, 3) and (V, P, 3) -> (V, P, E)."""
        if self.geometry == 'ray':
            direction = F.normalize(slope * self.span, dim=-1)
            return self.frustum(torch.stack([start.expand_as(direction), direction], dim=-2))
        return self.frustum(inverse_sigmoid(self.shares(start, slope)))
