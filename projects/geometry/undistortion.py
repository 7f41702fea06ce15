"""Geometry, pure functions: lens models backwards. In: distorted rays or pixels. Out: those of a pinhole.

Pixels are u right, v down, integers at centres; rays are (x/z, y/z) of the camera frame. Lens models are those of
geometry.distortion: codes and (..., 5) coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from .distortion import FISHEYE, MODELS, PINHOLE, RADTAN, distort, max_radius_of, models_of

WIDEST_DEG = 80.0
"""Half the field of view of an undistorted image at the most: a pinhole has no pixel for 90 degrees."""
_WIDEST_FISHEYE_RAD = math.pi / 2 - 1e-4
_GROWTH_STEPS, _RADIUS_STEPS, _NEWTON_STEPS = 12, 24, 8


def undistort_points(xy: Tensor, model: Tensor, coefficients: Tensor, max_radius: Tensor | None = None,
                     models: Collection[int] | None = None) -> Tensor:
    """Solves `distort(result) = xy`: along the radius by safeguarded Newton, then Newton in two dimensions for radtan.

    The number of steps is fixed: to stop early one would have to ask the tensors, for which a GPU's host waits.

    Args:
        xy: (..., P, 2) distorted normalised coordinates.
        model: (...) int64 codes, see geometry.distortion.
        coefficients: (..., 5).
        max_radius: (...) largest radius that the lens model maps; None works it out from the coefficients.
        models: the codes that may occur in `model`, where the caller knows; None finds out.

    Returns:
        (..., P, 2) in xy's dtype (solved in float64, to less than 1e-6 within the lens model). What lies beyond the lens
        model comes back on its rim. Gradients to xy and coefficients are those of the implicit function, and finite.
    """
    occurring = models_of(model) if models is None else models
    if not {RADTAN, FISHEYE} & set(occurring):
        return xy
    if max_radius is None:
        max_radius = max_radius_of(model, coefficients)
    bent, terms = xy.double(), coefficients.double()
    with torch.no_grad():
        result = _solve_radius(bent, model, terms, max_radius.double())
        if RADTAN in occurring:
            rim = max_radius.double()[..., None, None]
            refined = result
            for _ in range(_NEWTON_STEPS):
                refined = _newton_step(refined, bent, model, terms, occurring)
                refined = refined * (rim / refined.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
            result = torch.where((model == RADTAN)[..., None, None], refined, result)
        within = ((distort(result, model, terms, occurring) - bent).abs() < 1e-6).all(dim=-1, keepdim=True)
    # one last step with gradients: its derivative is the inverse of the lens model's
    return torch.where(within, _newton_step(result, bent, model, terms, occurring), result).to(xy.dtype)


def undistorted_intrinsics(img_from_cam: Tensor, model: Tensor, coefficients: Tensor, hw: tuple[int, int]) -> Tensor:
    """K of the undistorted image, of the same size: the largest upright view every pixel of which the lens has seen.

    That is the rule of cv2.getOptimalNewCameraMatrix at alpha 0: the rays of the distorted image's four borders are
    undistorted, and the rectangle inside them is stretched over the image. Keeping K instead would lose the rim of a
    barrel lens, and leave black corners with a pincushion lens, which a network would take for something to see. The
    view is cut at WIDEST_DEG to each side, or a fisheye's centre would shrink to a few pixels.

    Args:
        img_from_cam: (3, 3) or (4, 4) raw K without skew.
        model: () code; coefficients: (5,).
        hw: height and width.

    Returns:
        K of the same shape, float64; a pinhole's own K.

    Raises:
        ValueError: where no such view is left.
    """
    matrix = img_from_cam.double().clone()
    if int(model) == PINHOLE:
        return matrix
    steps = torch.linspace(0, 1, 101, dtype=torch.float64)
    zeros, ones = torch.zeros_like(steps), torch.ones_like(steps)
    unit = torch.stack([torch.stack(side, -1) for side in
                        ((zeros, steps), (ones, steps), (steps, zeros), (steps, ones))])  # left, right, top, bottom
    border = unit * torch.tensor([hw[1] - 1.0, hw[0] - 1.0], dtype=torch.float64)
    rays = undistort_points(_rays(border.reshape(-1, 2), matrix), model, coefficients).reshape(4, -1, 2)
    widest = math.tan(math.radians(WIDEST_DEG))
    low = torch.stack([rays[0, :, 0].max(), rays[2, :, 1].max()]).clamp(min=-widest)
    high = torch.stack([rays[1, :, 0].min(), rays[3, :, 1].min()]).clamp(max=widest)
    if (high <= low).any():
        raise ValueError(f'a lens {MODELS[int(model)]} {coefficients.tolist()} leaves nothing of an image of (height, width) '
                         f'{tuple(hw)} to undistort: check its coefficients and K')
    focal = torch.tensor([hw[1] - 1.0, hw[0] - 1.0], dtype=torch.float64) / (high - low)
    matrix[[0, 1], [0, 1]] = focal
    matrix[:2, 2] = -low * focal
    matrix[0, 1] = 0.0
    return matrix


def _rays(uv_px: Tensor, img_from_cam: Tensor) -> Tensor:
    """(P, 2) pixels -> (P, 2) (x/z, y/z), still distorted."""
    return (uv_px - img_from_cam[:2, 2]) @ torch.linalg.inv(img_from_cam[:2, :2]).T


def _solve_radius(bent: Tensor, model: Tensor, coefficients: Tensor, max_radius: Tensor) -> Tensor:
    """Inverts the radial part, t (1 + c1 t^2 + ...) with t the radius (radtan) or the angle off axis (fisheye)."""
    k1, k2, p1_or_k3, p2_or_k4, k3 = coefficients[..., None, :].unbind(-1)
    fisheye = (model == FISHEYE)[..., None]
    terms = (k1, k2, torch.where(fisheye, p1_or_k3, k3), torch.where(fisheye, p2_or_k4, torch.zeros_like(k3)))
    goal = bent.norm(dim=-1)
    rim = torch.where(fisheye, max_radius[..., None].atan().clamp(max=_WIDEST_FISHEYE_RAD), max_radius[..., None])
    low, high = torch.zeros_like(goal), torch.minimum(goal, rim)
    for _ in range(_GROWTH_STEPS):  # until `high` lies beyond the goal
        high = torch.where(_radial(high, terms) < goal, torch.minimum(2 * high, rim), high)
    root = high.clone()
    for _ in range(_RADIUS_STEPS):
        off = _radial(root, terms) - goal
        low, high = torch.where(off < 0, root, low), torch.where(off > 0, root, high)
        step = off / _radial_slope(root, terms)
        newton = root - step
        inside = (newton >= low) & (newton <= high)  # False for a NaN as well
        root = torch.where(off == 0, root, torch.where(inside, newton, (low + high) / 2))
    radius = torch.where(fisheye, root.clamp(max=_WIDEST_FISHEYE_RAD).tan(), root)
    scale = torch.where(goal > 1e-12, radius / goal.clamp(min=1e-12), torch.ones_like(goal))
    return bent * scale[..., None]


def _radial(t: Tensor, terms: tuple[Tensor, ...]) -> Tensor:
    t2, (c1, c2, c3, c4) = t * t, terms
    return t * (1 + t2 * (c1 + t2 * (c2 + t2 * (c3 + t2 * c4))))


def _radial_slope(t: Tensor, terms: tuple[Tensor, ...]) -> Tensor:
    t2, (c1, c2, c3, c4) = t * t, terms
    return 1 + t2 * (3 * c1 + t2 * (5 * c2 + t2 * (7 * c3 + t2 * 9 * c4)))


def _newton_step(guess: Tensor, bent: Tensor, model: Tensor, coefficients: Tensor, models: Collection[int]) -> Tensor:
    """guess - J^-1 (distort(guess) - bent), with J at the guess and without a gradient."""
    with torch.no_grad():
        along, across, off_diagonal = _jacobian(guess, model, coefficients)
        determinant = along * across - off_diagonal ** 2
        safe = torch.where(determinant.abs() > 1e-9, determinant, torch.ones_like(determinant))
    miss_x, miss_y = (distort(guess, model, coefficients, models) - bent).unbind(-1)
    step = torch.stack([across * miss_x - off_diagonal * miss_y, along * miss_y - off_diagonal * miss_x], -1)
    return guess - step / safe[..., None]


def _jacobian(xy: Tensor, model: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries xx, yy and xy of the lens model's derivative (..., P); it is symmetric for all models."""
    k1, k2, p1, p2, k3 = coefficients[..., None, :].unbind(-1)
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    scale, slope = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))
    radtan = (scale + x * x * slope + 2 * p1 * y + 6 * p2 * x, scale + y * y * slope + 6 * p1 * y + 2 * p2 * x,
              x * y * slope + 2 * p1 * x + 2 * p2 * y)
    terms = (k1, k2, p1, p2)  # a fisheye's k3 and k4 are in the places of p1 and p2
    safe_r2 = r2.clamp(min=1e-16)
    radius = safe_r2.sqrt()
    theta = radius.atan()
    around = _radial(theta, terms) / radius
    change = (_radial_slope(theta, terms) / (1 + safe_r2) - around) / safe_r2
    change = torch.where(r2 > 1e-16, change, torch.zeros_like(change))
    fisheye = (around + x * x * change, around + y * y * change, x * y * change)
    bent_one, bent_other = (model == RADTAN)[..., None], (model == FISHEYE)[..., None]
    plain = (torch.ones_like(r2), torch.ones_like(r2), torch.zeros_like(r2))
    xx, yy, mixed = (torch.where(bent_one, a, torch.where(bent_other, b, c)) for a, b, c in zip(radtan, fisheye, plain))
    return xx, yy, mixed

