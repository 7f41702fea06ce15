"""Encodings. In: a camera rig, references of queries, a bird's-eye grid. Out: their views, augmented LiDAR frame.

Values are not looked at: rigs are checked where they are read, and looking would wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.geometry import views as rigs
from projects.geometry.rigid import compose

from .poses import pad_affine
from .views import Views


def camera_views(rig: rigs.Views, level_shape: Sequence[int], time: Tensor | None = None) -> Views:
    """Of the tokens of a feature level of all cameras; lens distortion aside.

    Args:
        rig: Calibration.views(), of B frames and N cameras, with all that happened to images and to the LiDAR frame.
        level_shape: (..., h, w); a level covers the padded image.
        time: (B or 1, N); None: all see at once.
    """
    rows, columns = level_shape[-2:]
    pixels = rig.img_from_cam[..., :3, :3]
    corner = torch.cat([pixels[..., :2, :] + 0.5 * pixels[..., 2:, :], pixels[..., 2:, :]], dim=-2)  # ours are 0 at a centre
    if time is None:
        time = torch.zeros(1, rig.cam_from_bev.shape[1], dtype=torch.long, device=corner.device)
    return Views(rig.cam_from_bev, corner, rig.padded_hw, (int(rows), int(columns)), time, validate=False)


def query_views(references_m: Tensor, yaw_rad: Tensor | None = None, time: Tensor | None = None) -> Views:
    """Of object queries: each looks from its reference along its yaw, P_q = [R(yaw)^T | -R(yaw)^T reference].

    Args:
        references_m: (B, Q, 3) metres.
        yaw_rad: (B, Q), counter-clockwise from x; None is 0.
        time: (B or 1, Q).
    """
    place = references_m.double()
    yaw = torch.zeros_like(place[..., 0]) if yaw_rad is None else yaw_rad.double()
    cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    turned = torch.stack([cos, sin, zero, -sin, cos, zero, zero, zero, zero + 1], dim=-1).unflatten(-1, (3, 3))
    return Views(pad_affine(turned, -compose(turned, place[..., None])[..., 0]), time=time, per='token', validate=False)


def bev_views(bounds_m: Sequence[float], shape: tuple[int, int], batch: int = 1, device: torch.device | str = 'cpu',
              time: Tensor | None = None) -> Views:
    """Of bird's-eye cells: a camera whose affine intrinsics map the range to -1/2..1/2, shifted to each cell.

    Args:
        bounds_m: x_min, y_min, z_min, x_max, y_max, z_max.
        shape: rows along y and columns along x; tokens run row by row.
        batch: B.
        device: where they are made.
        time: (B or 1, rows * columns).
    """
    low, high = (torch.tensor(bounds_m[part], dtype=torch.float64) for part in (slice(0, 3), slice(3, 6)))
    rows, columns = shape
    share_y, share_x = ((torch.arange(count, dtype=torch.float64) + 0.5) / count for count in shape)
    share = torch.stack([share_x.repeat(rows), share_y.repeat_interleave(columns), torch.full((rows * columns,), 0.5,
                                                                                              dtype=torch.float64)], dim=-1)
    pose = pad_affine(torch.eye(3, dtype=torch.float64).expand(len(share), 3, 3), -(low + share * (high - low)))
    affine = pad_affine(torch.diag(1 / (high - low))).expand(len(share), 4, 4)
    pose, affine = (part.to(device, non_blocking=True).expand(batch, -1, -1, -1) for part in (pose, affine))
    return Views(pose, affine, None, shape, time, 'token', validate=False)


def unposed_views(batch: int, tokens: int, device: torch.device | str = 'cpu', grid: Tensor | tuple[int, int] | None = None,
                  time: Tensor | None = None) -> Views:
    """Of tokens without a pose: text, learned queries. They see as the reference camera does.

    Args:
        batch, tokens: how many.
        device: where they are made.
        grid, time: as in Views.
    """
    pose = torch.eye(4, dtype=torch.float64, device=device).expand(batch, tokens, 4, 4)
    return Views(pose, None, None, grid, time, 'token', torch.zeros(1, tokens, dtype=torch.bool, device=device), validate=False)
