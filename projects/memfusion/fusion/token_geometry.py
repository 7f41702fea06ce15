"""FuTr++, stage geometry. In: camera tokens, augmented rig. Out: tokens that know where they look, in the LiDAR frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.memfusion.structures import Calibration

from .fusion_state import CameraTokens, check_kind

KINDS = ('none', 'camera_id', 'yaw_pitch', 'ray', 'pluecker', 'frustum')
_NUMBERS = dict(yaw_pitch=4, ray=6, pluecker=6)


class TokenGeometry(nn.Module):
    """Adds an encoding of the viewing ray through each token's centre, in the augmented LiDAR frame.

    Args:
        dim: D of the tokens.
        kind: 'none'; 'camera_id', a learned vector by camera name; 'yaw_pitch', sine and cosine of the ray's angles; 'ray',
            origin and direction; 'pluecker', direction and moment; 'frustum', points at several depths (as PETR, Liu et
            al., ECCV 2022).
        cam_names: for 'camera_id', all names that may occur; their order is part of the weights.
        depths_m: for 'frustum'.
        scale_m: lengths are divided by it; the range of the LiDAR is a good value.
    """

    def __init__(self, dim: int, kind: str = 'ray', cam_names: Sequence[str] = (),
                 depths_m: Sequence[float] = (1.0, 4.0, 10.0, 20.0, 35.0, 55.0), scale_m: float = 50.0) -> None:
        super().__init__()
        check_kind('geometry', kind, KINDS)
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

    def forward(self, tokens: CameraTokens, calibration: Calibration) -> CameraTokens:
        """The tokens with the encoding added to their features.

        Raises:
            ValueError: for camera_id, naming the cameras that are not in cam_names.
        """
        if self.kind == 'none':
            return tokens
        if self.kind == 'camera_id':
            encoding = self.identity(self._positions(calibration))[None, :, None]
        else:
            numbers = self.numbers(tokens.uv_px, calibration)
            encoding = self.encode(torch.where(tokens.valid[..., None], numbers, torch.zeros_like(numbers)))
        return replace(tokens, features=(tokens.features + encoding).masked_fill(~tokens.valid[..., None], 0))

    def numbers(self, uv_px: Tensor, calibration: Calibration) -> Tensor:
        """(V, N, T, 2) network pixels -> (V, N, T, K) float32, the numbers that are encoded."""
        if self.kind == 'frustum':
            points = [unproject(calibration, uv_px, depth) for depth in self.depths_m]
            return torch.cat(points, dim=-1) / self.scale_m
        origin = torch.linalg.inv(calibration.cam_from_bev)[:, :, None, :3, 3].float().expand(*uv_px.shape[:-1], 3)
        direction = F.normalize(unproject(calibration, uv_px, 1.0) - origin, dim=-1)
        if self.kind == 'ray':
            return torch.cat([origin / self.scale_m, direction], dim=-1)
        if self.kind == 'pluecker':
            return torch.cat([direction, torch.linalg.cross(origin / self.scale_m, direction)], dim=-1)
        level = direction[..., :2].norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return torch.cat([direction[..., :2] / level, direction[..., 2:], level], dim=-1)

    def _positions(self, calibration: Calibration) -> Tensor:
        unknown = [name for name in calibration.cam_names if name not in self.cam_names]
        if unknown:
            raise ValueError(f'cameras {unknown} are not in fusion_layer.geometry.cam_names {list(self.cam_names)}: add them '
                             '(a trained model knows only the cameras it was trained with), or use another kind')
        return torch.tensor([self.cam_names.index(name) for name in calibration.cam_names], device=calibration.bev_aug.device)


def unproject(calibration: Calibration, uv_px: Tensor, depth_m: float) -> Tensor:
    """(V, N, T, 2) network pixels -> (V, N, T, 3) points at this depth along the camera's axis, augmented LiDAR frame."""
    return calibration.unproject(uv_px, torch.full_like(uv_px[..., 0], depth_m))
