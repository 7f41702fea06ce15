"""Encoding. In: features of image positions, the views. Out: features that know where they look, augmented LiDAR frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from projects.geometry.views import Views

KINDS = ('none', 'pixel', 'camera_id', 'yaw_pitch', 'ray', 'pluecker', 'frustum')
_NUMBERS = dict(pixel=2, yaw_pitch=4, ray=6, pluecker=6)


class TokenGeometry(nn.Module):
    """Adds an encoding of the viewing ray through each token's centre, in the augmented LiDAR frame.

    Args:
        dim: D of the tokens.
        kind: 'none'; 'pixel', the place in its image, for attention that knows the cameras by their poses; 'camera_id', a
            learned vector by camera name; 'yaw_pitch', sine and cosine of the ray's angles; 'ray',
            origin and direction; 'pluecker', direction and moment; 'frustum', points at several depths (as PETR, Liu et
            al., ECCV 2022).
        cam_names: for 'camera_id', all names that may occur; their order is part of the weights.
        depths_m: for 'frustum'.
        scale_m: lengths are divided by it; the range of the LiDAR is a good value.
    """

    def __init__(self, dim: int, kind: str = 'ray', cam_names: Sequence[str] = (),
                 depths_m: Sequence[float] = (1.0, 4.0, 10.0, 20.0, 35.0, 55.0), scale_m: float = 50.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f'fusion_layer.geometry.kind must be one of {", ".join(KINDS)}, got {kind!r}')
        self.kind, self.scale_m, self.cam_names = kind, scale_m, tuple(cam_names)
        self.depths_m = tuple(float(depth) for depth in depths_m)
        if kind == 'camera_id':
            if not self.cam_names or len(set(self.cam_names)) != len(self.cam_names):
                raise ValueError('fusion_layer.geometry.cam_names must list every camera once for kind camera_id, got '
                                 f'{list(self.cam_names)}')
            self.identity = nn.Embedding(len(self.cam_names), dim)
        elif kind != 'none':
            numbers = _NUMBERS.get(kind, 3 * len(self.depths_m))
            self.encode = nn.Sequential(nn.Linear(numbers, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, features: Tensor, uv_px: Tensor, valid: Tensor, views: Views) -> Tensor:
        """The features with the encoding added.

        Args:
            features: (V, N, T, D) of T positions in each view.
            uv_px: (V, N, T, 2) network pixels.
            valid: (V, N, T) bool; others come back as 0 (but for kind 'none').
            views: of V frames and N cameras.

        Raises:
            ValueError: for camera_id, naming the cameras that are not in cam_names.
        """
        if self.kind == 'none':
            return features
        if self.kind == 'camera_id':
            encoding = self.identity(self._positions(views))[None, :, None]
        else:
            numbers = self.numbers(uv_px, views)
            encoding = self.encode(torch.where(valid[..., None], numbers, torch.zeros_like(numbers)))
        return (features + encoding).masked_fill(~valid[..., None], 0)

    def numbers(self, uv_px: Tensor, views: Views) -> Tensor:
        """(V, N, T, 2) network pixels -> (V, N, T, K) float32, the numbers that are encoded."""
        if self.kind == 'pixel':
            return ((2 * uv_px + 1) / views.img_hw.flip(-1)[:, :, None] - 1).float()
        origins, direction = views.rays_at(uv_px, normalise=self.kind != 'frustum')
        origin = origins[:, :, None].expand_as(direction)
        if self.kind == 'frustum':
            return torch.cat([origin + depth * direction for depth in self.depths_m], dim=-1) / self.scale_m
        if self.kind == 'ray':
            return torch.cat([origin / self.scale_m, direction], dim=-1)
        if self.kind == 'pluecker':
            return torch.cat([direction, torch.linalg.cross(origin / self.scale_m, direction)], dim=-1)
        level = direction[..., :2].norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return torch.cat([direction[..., :2] / level, direction[..., 2:], level], dim=-1)

    def _positions(self, views: Views) -> Tensor:
        unknown = [name for name in views.cam_names if name not in self.cam_names]
        if unknown:
            raise ValueError(f'cameras {unknown} are not in fusion_layer.geometry.cam_names {list(self.cam_names)}: add them '
                             '(a trained model knows only the cameras it was trained with), or use another kind')
        return torch.tensor([self.cam_names.index(name) for name in views.cam_names], device=views.cam_valid.device)
