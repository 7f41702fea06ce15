"""Encodings. In: views of keys. Out: keys that know which points they may show, as PETR's (Liu et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from projects.geometry.rigid import compose, invert_affine

from .bound import Encoding, PlainHeads
from .depths import make_depths
from .frames import Frame
from .frustum import FrustumEncoder, inverse_sigmoid, normalised
from .view_checks import check_batch
from .views import Views


class FrustumPE(Encoding):
    """Adds to the keys what two layers make of points at several depths on a token's viewing ray, in the world frame.

    It is absolute: what it makes changes with the world frame, which should be that of the boxes. Tokens without a pose get
    nothing. Pinholes: lens distortion is left out.

    Args:
        dim: heads * head dim of the attention.
        around: x_min, y_min, z_min, x_max, y_max, z_max, metres: what points are shares of.
        depths: kind, num, start_m and end_m of `make_depths`.
        hidden: width between the two layers; None is 4 dim.

    Raises:
        ValueError: for depths or a range that cannot be.
    """

    depths_m: Tensor

    def __init__(self, dim: int, around: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
                 depths: Mapping[str, Any] | None = None, hidden: int | None = None) -> None:
        super().__init__()
        if len(around) != 6 or any(low >= high for low, high in zip(around[:3], around[3:])):
            raise ValueError(f'encoding.around must be x_min, y_min, z_min, x_max, y_max, z_max, got {tuple(around)}')
        self.dim, self.around = dim, tuple(around)
        depths_m = make_depths(**{'kind': 'lid', 'num': 64, 'start_m': 1.0, 'end_m': 61.2, **(depths or {})})
        self.register_buffer('depths_m', depths_m, persistent=False)
        self.encode = FrustumEncoder(len(depths_m), dim, hidden)

    def check(self, num_heads: int, head_dim: int) -> None:
        """ValueError where such an attention is not as wide as `dim`."""
        if num_heads * head_dim != self.dim:
            raise ValueError(f'encoding.dim={self.dim}, but the attention has {num_heads} heads of {head_dim} channels')

    def bind(self, views_q: Views, views_k: Views | None, num_heads: int, head_dim: int,
             frame: Frame | None = None) -> BoundFrustum:
        """The encoding of these keys; see PoseEncoding.bind.

        Raises:
            ValueError: where their views have no K or no grid, or the attention is not as wide as `dim`.
        """
        self.check(num_heads, head_dim)
        views = views_q if views_k is None else views_k
        points = normalised(self.points(views), self.around)
        embedding = self.encode(inverse_sigmoid(points).to(next(self.encode.parameters()).dtype))
        if views.posed is not None:
            embedding = embedding * views.posed[:, :, None, None]
        return BoundFrustum(views, embedding.flatten(1, 2).unflatten(-1, (num_heads, head_dim)).transpose(1, 2))

    def points(self, views: Views) -> Tensor:
        """(B, N, T, D, 3) float64 metres, world frame."""
        lift, places = views.lift(), views.places()
        if lift is None or places is None or views.image_hw is None:
            raise ValueError('FrustumPE looks along the rays of image patches: the views of the keys need img_from_cam, '
                             'image_hw and grid')
        if isinstance(views.grid, Tensor) and views.grid.shape[-1] == 2:
            raise ValueError('FrustumPE needs to know how many rows and columns an image has: give Views.grid as (rows, '
                             'columns), or a tensor of y, x, rows, columns')
        y, x, rows, columns = places.unbind(-1)
        u, v = (x + 0.5) / columns.clamp(min=1) - 0.5, (y + 0.5) / rows.clamp(min=1) - 0.5
        image = torch.stack([u, v, torch.ones_like(u)], dim=-1)
        world_from_cam = invert_affine(views.cam_from_world.double())
        ray = compose(compose(world_from_cam, invert_affine(lift))[..., None, :3, :3], image[..., None])  # (B, N, T, 3, 1)
        return world_from_cam[..., None, None, :3, 3] + self.depths_m[:, None] * ray.transpose(-1, -2)


class BoundFrustum(PlainHeads):
    """Adds an embedding (B, heads, S, d) to the keys."""

    def __init__(self, views: Views, embedding: Tensor) -> None:
        self.views, self.embedding = views, embedding

    def keys(self, heads: Tensor) -> Tensor:
        """k + embedding."""
        check_batch(self.views, heads.shape[0], 'keys')
        self.views.tokens_each(heads.shape[2], 'keys')
        return heads + self.embedding.to(heads.dtype)
