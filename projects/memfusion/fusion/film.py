"""FuTr++, stage FiLM. In: BEV and camera tokens. Out: BEV (1 + scale) + shift, where the cameras say scale and shift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from projects.geometry import cell_positions, full_precision
from projects.memfusion.structures import Calibration

from .fusion_state import FusionState, check_kind

KINDS = ('off', 'global', 'per_camera_sum', 'per_camera_gated')


class FiLM(nn.Module):
    """Feature-wise linear modulation of the BEV by the cameras (Perez et al., AAAI 2018). It starts as the identity.

    Args:
        bev_channels: C.
        dim: D of the tokens.
        point_cloud_range: of the BEV, metres.
        kind: 'off'; 'global', from the mean of all cameras; 'per_camera_sum', one scale and shift per camera, summed;
            'per_camera_gated', the same, each weighted by how well its camera sees the BEV cell.
        heights_m: for 'per_camera_gated', heights of the points of a cell's pillar.
        softness_px: for 'per_camera_gated', width of the soft image border.
    """

    def __init__(self, bev_channels: int, dim: int, point_cloud_range: Sequence[float], kind: str = 'per_camera_gated',
                 heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5), softness_px: float = 16.0) -> None:
        super().__init__()
        check_kind('film', kind, KINDS)
        self.kind, self.softness_px = kind, softness_px
        self.point_cloud_range, self.heights_m = tuple(point_cloud_range), tuple(heights_m)
        if kind != 'off':
            self.hidden = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU())
            self.output = nn.Linear(dim, 2 * bev_channels)
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, state: FusionState) -> FusionState:
        """The state with a modulated bev."""
        if self.kind == 'off':
            return state
        return replace(state, bev=modulate(state.bev, *self._modulation(state)))

    def _modulation(self, state: FusionState) -> tuple[Tensor, Tensor]:
        """Scale and shift of each source (V, S, 2C), and how much it counts in each cell (V, S, H * W); they are summed."""
        assert state.tokens is not None  # FuTrPlusPlus makes them where a stage reads them
        tokens, weight = state.tokens.mean(), state.weight[..., None]  # (V, N, D), (V, N, 1)
        everywhere = weight.new_ones(*weight.shape[:2], state.bev[0, 0].numel())
        if self.kind == 'global':
            cameras = state.calibration.cam_valid.sum(1)[:, None, None].clamp(min=1)
            pooled = (tokens * weight).sum(1, keepdim=True) / cameras
            return self.output(self.hidden(pooled)) * weight.sum(1, keepdim=True) / cameras, everywhere[:, :1]
        per_camera = self.output(self.hidden(tokens)) * weight
        if self.kind == 'per_camera_sum':
            return per_camera.sum(1, keepdim=True), everywhere[:, :1]
        return per_camera, self.gate(state.bev.shape[-2:], state.calibration)

    def gate(self, shape: tuple[int, int] | torch.Size, calibration: Calibration) -> Tensor:
        """(V, N, H * W) in 0..1: the mean visibility of the points of each cell's pillar."""
        cells = cell_positions((shape[0], shape[1]), self.point_cloud_range, calibration.bev_aug.device).float().flatten(0, 1)
        visible = torch.zeros((), device=cells.device)
        for height in self.heights_m:
            points = torch.cat([cells, torch.full_like(cells[:, :1], height)], dim=1)
            visible = visible + soft_visibility(points.expand(len(calibration.bev_aug), -1, -1), calibration, self.softness_px)
        return visible / len(self.heights_m)


@full_precision  # the BEV is not to lose digits where nothing is added
def modulate(bev: Tensor, modulation: Tensor, gate: Tensor) -> Tensor:
    """bev (V, C, H, W), modulation (V, S, 2C), gate (V, S, H * W) -> bev (1 + scale) + shift, each the gated sum over S."""
    scale, shift = modulation.transpose(1, 2).to(bev.dtype).chunk(2, dim=1)  # (V, C, S)
    flat, gate = bev.flatten(2), gate.to(bev.dtype)
    return torch.baddbmm(flat, shift, gate).addcmul_(flat, scale @ gate).unflatten(2, bev.shape[-2:])


def soft_visibility(points_m: Tensor, calibration: Calibration, softness_px: float) -> Tensor:
    """(V, P, 3) -> (V, N, P): sigmoid of the distance to the nearest image border; 0 behind a camera and for a missing one."""
    uv_px, _, has_pixel = calibration.project_cam(calibration.to_cam(points_m))
    size_px = calibration.img_hw.flip(-1)[:, :, None].to(uv_px.dtype)
    margin_px = torch.minimum(uv_px + 0.5, size_px - 0.5 - uv_px).amin(-1)
    return torch.sigmoid(margin_px / softness_px) * has_pixel
