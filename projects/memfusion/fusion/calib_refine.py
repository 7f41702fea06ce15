"""FuTr++, stage calib_refine. In: image tokens, BEV and the rig as it came. Out: the rig corrected, a confidence per camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.geometry import full_precision, sample_bilinear
from projects.geometry.rigid import skew
from projects.memfusion.losses.fusion_losses import calibration_error
from projects.memfusion.losses.ranks import mean_over_ranks

from .fusion_layer import FusionTruth
from .fusion_state import FusionState, check_kind, normalised
from .token_grid import TokenGrid

KINDS = ('none', 'offsets', 'pose')
_SHIFTS_PX = (-24.0, -8.0, 0.0, 8.0, 24.0)
_SURE = 2.0  # sigmoid is 0.88
_ERROR_DEG, _ERROR_M = 1.0, 0.2  # a rig that is off by this much deserves a confidence of 1/e


class CalibRefine(nn.Module):
    """Compares what each camera sees with what the LiDAR BEV holds along its rays, and corrects the rig.

    Each token is correlated with the BEV along its own ray and along rays a few pixels beside it (a cost volume, as LCCNet,
    Lv et al., CVPR Workshops 2021): where the rig is off, the best match lies to one side.

    Args:
        bev_channels, img_channels: C and Ci.
        stride: network pixels per feature cell of the level.
        level: position in the state's maps.
        point_cloud_range: of the BEV, metres.
        kind: 'none'; 'offsets', one pixel shift per camera, taught by the detection loss alone; 'pose', a rigid correction
            per camera, taught by the noise that was put in as well. Both start at zero.
        confidence: whether to predict how far each camera's calibration is to be trusted, taught by the same noise.
        grid: rows and columns of tokens per camera.
        depths_m: where along the rays the BEV is looked at.
        hidden_channels: of the comparison.
        limits: largest rotation in degrees and translation in metres about each axis ('pose'), largest shift in pixels.
        loss_weight: of its losses.
    """

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        stride: int,
        level: int,
        point_cloud_range: Sequence[float],
        kind: str = 'none',
        confidence: bool = False,
        grid: Sequence[int] = (8, 16),
        depths_m: Sequence[float] = (5.0, 10.0, 20.0, 35.0),
        hidden_channels: int = 64,
        limits: Sequence[float] = (5.0, 0.5, 32.0),
        loss_weight: float = 0.1,
    ) -> None:
        super().__init__()
        check_kind('calib_refine', kind, KINDS)
        self.kind, self.confidence, self.level, self.loss_weight = kind, confidence, level, loss_weight
        self.point_cloud_range, self.depths_m = tuple(point_cloud_range), tuple(depths_m)
        self.limit_deg, self.limit_m, self.limit_px = limits
        if not (confidence or kind != 'none'):
            return
        self.tokens = TokenGrid(img_channels, hidden_channels, stride, grid)
        self.bev = nn.Linear(bev_channels, hidden_channels)
        matches = len(self.depths_m) * len(_SHIFTS_PX)
        self.compare = nn.Sequential(nn.Linear(hidden_channels + matches + 2, hidden_channels), nn.ReLU())
        self.smooth = nn.Sequential(nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1), nn.ReLU())
        sizes = dict(offsets=2, pose=6)
        self.correct = _zero_linear(hidden_channels, sizes[kind]) if kind != 'none' else None
        self.trust = _zero_linear(hidden_channels, 1, bias=_SURE) if confidence else None

    def forward(self, state: FusionState) -> FusionState:
        """The state with a corrected calibration and weights; aux gets pose_correction, confidence_logits, cam_valid."""
        if self.kind == 'none' and not self.confidence:
            return state
        evidence, aux = self._evidence(state), {**state.aux, 'cam_valid': state.calibration.cam_valid}
        calibration, weight = state.calibration, state.weight
        if self.correct is not None:
            raw = self.correct(evidence).float().tanh()
            if self.kind == 'offsets':
                calibration = calibration.with_shift(raw * self.limit_px)
            else:
                pose = rigid_from_twist(torch.cat(
                    [raw[..., :3] * math.radians(self.limit_deg), raw[..., 3:] * self.limit_m], dim=-1))
                calibration = calibration.with_noise(pose)
                aux['pose_correction'] = pose
        if self.trust is not None:
            aux['confidence_logits'] = self.trust(evidence).float().squeeze(-1)
            weight = weight * aux['confidence_logits'].sigmoid()
        return replace(state, calibration=calibration, weight=weight, aux=aux)

    def loss(self, aux: dict[str, Tensor], truth: FusionTruth) -> dict[str, Tensor]:
        """loss_calib_pose, loss_calib_confidence: means over the valid cameras of all ranks."""
        losses: dict[str, Tensor] = {}
        if self.kind != 'pose' and not self.confidence:
            return losses
        valid = aux['cam_valid'].float()
        share = self.loss_weight * valid / mean_over_ranks(valid.sum()).clamp(min=1.0)
        left = truth.noise.float()
        if self.kind == 'pose':
            left = _chain(aux['pose_correction'], left)
            angle_deg, shift_m = calibration_error(left)
            losses['loss_calib_pose'] = torch.sum(share * (angle_deg.abs() / _ERROR_DEG + shift_m.abs() / _ERROR_M).sum(-1))
        if self.confidence:
            angle_deg, shift_m = calibration_error(left.detach())
            deserved = torch.exp(-angle_deg.norm(dim=-1) / _ERROR_DEG - shift_m.norm(dim=-1) / _ERROR_M)
            entropy = F.binary_cross_entropy_with_logits(aux['confidence_logits'], deserved, reduction='none')
            losses['loss_calib_confidence'] = torch.sum(share * entropy)
        return losses

    def _evidence(self, state: FusionState) -> Tensor:
        """(V, N, hidden): per camera, how its tokens agree with the BEV along their rays."""
        tokens = self.tokens(state.maps[self.level], state.calibration)
        u_px, v_px = tokens.uv_px.unbind(-1)
        beside = torch.stack([torch.stack([u_px + shift, v_px], dim=-1) for shift in _SHIFTS_PX], dim=3)
        origins, directions = state.calibration.views().rays_at(beside.flatten(2, 3))
        directions = directions.unflatten(2, beside.shape[2:4])[..., :2]  # (V, N, T, S, 2)
        points = torch.cat([origins[:, :, None, None, :2] + depth * directions for depth in self.depths_m], dim=3)
        # Projected first, since it is the smaller: what is linear may be sampled afterwards. Beyond the range only the bias is.
        reduced = (self.bev.weight @ state.bev.flatten(2)).unflatten(2, state.bev.shape[-2:])
        seen = self._bev_at(reduced, points) + self.bev.bias  # (V, N, T, Z * S, hidden)
        match = (seen @ tokens.features[..., None].to(seen.dtype)).squeeze(-1) / math.sqrt(seen.shape[-1])
        size_px = state.calibration.img_hw.flip(-1)[:, :, None].to(tokens.uv_px.dtype)
        parts = [tokens.features, match, tokens.uv_px / size_px - 0.5]
        missing = ~tokens.valid[..., None]
        evidence = torch.cat([part.to(tokens.features.dtype) for part in parts], dim=-1).masked_fill(missing, 0)
        compared = self.compare(evidence).masked_fill(missing, 0)
        on_grid = compared.flatten(0, 1).transpose(1, 2).unflatten(2, self.tokens.grid)
        smooth = self.smooth(on_grid).flatten(2).transpose(1, 2).unflatten(0, tokens.valid.shape[:2])
        return replace(tokens, features=smooth).mean()

    def _bev_at(self, bev: Tensor, points_m: Tensor) -> Tensor:
        """(V, C, H, W) at (V, N, T, Z, 2) -> (V, N, T, Z, C), 0 outside the range."""
        grid = normalised(points_m, self.point_cloud_range).flatten(1, 2)
        sampled = sample_bilinear(bev.float(), grid.float())  # (V, C, N * T, Z)
        return sampled.permute(0, 2, 3, 1).unflatten(1, points_m.shape[1:3])


def _zero_linear(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Linear:
    layer = nn.Linear(in_channels, out_channels)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, bias)
    return layer


@full_precision
def _chain(outer: Tensor, inner: Tensor) -> Tensor:
    return outer @ inner


@full_precision
def rigid_from_twist(twist: Tensor) -> Tensor:
    """(..., 6) rotation vector in radians and translation part in metres -> (..., 4, 4), the exponential map of SE(3)."""
    omega, moved = twist.double().split(3, dim=-1)  # closed: torch's matrix_exp makes the host wait for a GPU
    square = (omega * omega).sum(-1)[..., None, None]
    small = square < 1e-8
    angle = torch.where(small, 1.0, square).sqrt()
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle ** 2)
    third = torch.where(small, 1 / 6 - square / 120, (angle - angle.sin()) / angle ** 3)
    turn = skew(omega)
    eye = torch.eye(3, dtype=turn.dtype, device=turn.device)
    rotation = eye + first * turn + second * turn @ turn
    column = (eye + second * turn + third * turn @ turn) @ moved[..., None]
    rigid = F.pad(torch.cat([rotation, column], dim=-1), (0, 0, 0, 1))
    return (rigid + F.pad(torch.ones_like(square), (3, 0, 3, 0))).to(twist.dtype)

