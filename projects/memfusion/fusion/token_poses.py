"""FuTr++, poses of what attends. In: the rig, cells of the BEV. Out: Views of tokens and cells, for pose encodings.

World is the augmented LiDAR frame of the frame itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.encodings import Views
from projects.geometry.precision import full_precision
from projects.memfusion.structures import Calibration


@full_precision
def token_views(calibration: Calibration, grid: tuple[int, int], stride: int) -> Views:
    """Views of the tokens of TokenGrid, which cover every image's own feature cells, not its padding.

    Args:
        calibration: of V frames and N cameras.
        grid: rows and columns of the tokens.
        stride: network pixels per feature cell.
    """
    rig = calibration.views()
    covered = (rig.img_hw.double() / stride).ceil().clamp(min=1) * stride  # (V, N, 2)
    image, last = rig.img_from_cam[..., :2, :3], rig.img_from_cam[..., 2:3, :3]
    image = (image + 0.5 * last) / covered.flip(-1)[..., None]  # ours are integers at centres, Views counts from the corner
    return Views(rig.cam_from_bev, torch.cat([image, last], dim=-2), (1, 1), grid, _now(rig.cam_from_bev), validate=False)


@full_precision
def cell_views(cells_m: Tensor, bounds: Sequence[float], bev_shape: Sequence[int] | None = None) -> Views:
    """Views of cells: each is a camera that looks at the whole range from its own centre.

    Args:
        cells_m: (V, K, 2) centres, metres.
        bounds: (x_min, y_min, z_min, x_max, y_max, z_max) of the BEV, which becomes 1 long along every axis.
        bev_shape: rows and columns of the BEV, which cells are counted in; None leaves their places out.
    """
    device = cells_m.device
    low, high = (torch.tensor(end, dtype=torch.float64).to(device, non_blocking=True) for end in (bounds[:3], bounds[3:]))
    size = high - low
    places = torch.cat([cells_m.double(), ((low + high) / 2)[2].expand(*cells_m.shape[:2], 1)], dim=-1)
    eye = torch.eye(4, dtype=torch.float64, device=device)
    cell_from_bev = eye - F.pad(places[..., None], (3, 0, 0, 1))
    shrink = torch.diag(F.pad(1 / size, (0, 1), value=1.0)).expand_as(cell_from_bev)
    grid = None
    if bev_shape is not None:
        rows, columns = bev_shape
        x, y = ((cells_m.double() - low[:2]) / size[:2]).unbind(-1)
        counts = (torch.full_like(x, rows), torch.full_like(x, columns))
        grid = torch.stack([y * rows - 0.5, x * columns - 0.5, *counts], dim=-1)
    return Views(cell_from_bev, shrink, None, grid, _now(cell_from_bev), 'token', validate=False)


def _now(poses: Tensor) -> Tensor:
    """(1, N) int64: all of a frame is seen at once."""
    return torch.zeros(1, poses.shape[1], dtype=torch.int64, device=poses.device)
