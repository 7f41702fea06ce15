"""Geometry, pure functions. In: normalised coordinates (x/z, y/z) of the camera frame. Out: the same, distorted."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

MODELS = ('pinhole', 'radtan', 'fisheye')
"""Names of the lens models; a model's code is its position here."""
PINHOLE, RADTAN, FISHEYE = range(len(MODELS))
NUM_COEFFICIENTS = 5
_COEFFICIENTS_OF = {'pinhole': (0,), 'radtan': (4, 5), 'fisheye': (4,)}


def parse_distortion(model: str, coefficients: Sequence[float], name: str) -> tuple[int, list[float], float]:
    """Checks one camera's distortion.

    Args:
        model: one of MODELS.
        coefficients: none for pinhole, k1 k2 p1 p2 [k3] for radtan (OpenCV), k1 k2 k3 k4 for fisheye (KB4).
        name: the camera, for the error.

    Returns:
        code of the model, NUM_COEFFICIENTS coefficients padded with zeros, and the largest radius (x/z, y/z) that the
        model maps: beyond it the polynomial turns back and a point far outside would land inside the image.

    Raises:
        ValueError: naming the camera, for an unknown model, a wrong number of coefficients or one that is not finite.
    """
    if model not in MODELS:
        raise ValueError(f'camera {name}: unknown distortion model {model!r}, use one of {", ".join(MODELS)}')
    try:
        values = np.asarray(coefficients, dtype=np.float64).flatten().tolist()  # OpenCV gives (1, 5)
    except (TypeError, ValueError) as error:
        raise ValueError(f'camera {name}: distortion coefficients are no list of numbers: {coefficients!r}') from error
    if len(values) not in _COEFFICIENTS_OF[model]:
        raise ValueError(f'camera {name}: distortion model {model} takes {_COEFFICIENTS_OF[model][-1]} coefficients, '
                         f'got {len(values)}')
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f'camera {name}: distortion coefficients {values} are not all finite')
    values += [0.0] * (NUM_COEFFICIENTS - len(values))
    return MODELS.index(model), values, _max_radius(model, values)


def max_radius_of(model: Tensor, coefficients: Tensor) -> Tensor:
    """What parse_distortion gives as the largest radius, of (...) codes and (..., 5) coefficients: (...) float64."""
    rows = zip(model.reshape(-1).tolist(), coefficients.reshape(-1, NUM_COEFFICIENTS).tolist())
    radii = torch.tensor([_max_radius(MODELS[code], values) for code, values in rows], dtype=torch.float64)
    return radii.reshape(model.shape).to(model.device)


def models_of(model: Tensor) -> tuple[int, ...]:
    """The codes that occur in (...) codes on the CPU; all, which costs but never waits, where they are on another device."""
    return tuple(sorted(set(model.reshape(-1).tolist()))) if model.device.type == 'cpu' else (PINHOLE, RADTAN, FISHEYE)


def distort(xy: Tensor, model: Tensor, coefficients: Tensor, models: Collection[int] | None = None) -> Tensor:
    """Applies each camera's lens model, in OpenCV's order.

    Args:
        xy: (..., P, 2) normalised coordinates.
        model: (...) int64 codes.
        coefficients: (..., 5).
        models: the codes that may occur in `model`, where the caller knows; None finds out.

    Returns:
        (..., P, 2) distorted normalised coordinates; gradients are finite, at the axis as well.
    """
    occurring = models_of(model) if models is None else models
    result = xy
    for code, function in ((RADTAN, _radtan), (FISHEYE, _fisheye)):
        if code in occurring:
            result = torch.where((model == code)[..., None, None], function(xy, coefficients), result)
    return result


def _radtan(xy: Tensor, coefficients: Tensor) -> Tensor:
    k1, k2, p1, p2, k3 = (value[..., None] for value in coefficients.unbind(-1))
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    distorted_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    distorted_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return torch.stack([distorted_x, distorted_y], dim=-1)


def _fisheye(xy: Tensor, coefficients: Tensor) -> Tensor:
    k1, k2, k3, k4 = (value[..., None] for value in coefficients[..., :4].unbind(-1))
    r2 = (xy * xy).sum(-1)
    off_axis = r2 > 1e-16  # sqrt has no gradient at the axis, where the scale is 1
    radius = torch.where(off_axis, r2, torch.ones_like(r2)).sqrt()
    theta = torch.atan(radius)
    t2 = theta * theta
    theta_distorted = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    scale = torch.where(off_axis, theta_distorted / radius, torch.ones_like(r2))
    return xy * scale[..., None]


def _max_radius(model: str, coefficients: Sequence[float]) -> float:
    """Where the radial polynomial stops growing, as a radius of normalised coordinates; inf where it never does."""
    if model == 'pinhole':
        return math.inf
    if model == 'radtan':
        k1, k2, _, _, k3 = coefficients
        return math.sqrt(_first_positive_root([1.0, 3 * k1, 5 * k2, 7 * k3]))
    k1, k2, k3, k4 = coefficients[:4]
    theta = math.sqrt(_first_positive_root([1.0, 3 * k1, 5 * k2, 7 * k3, 9 * k4]))
    return math.tan(theta) if theta < math.pi / 2 else math.inf


def _first_positive_root(ascending: Sequence[float]) -> float:
    """Smallest positive real root of a polynomial (lowest power first); inf where there is none."""
    terms = list(ascending)
    while terms[-1] == 0.0:
        terms.pop()
    degree = len(terms) - 1
    if degree == 0:
        return math.inf
    companion = torch.diag(torch.ones(degree - 1, dtype=torch.float64), -1)
    companion[:, -1] = -torch.tensor(terms[:-1], dtype=torch.float64) / terms[-1]
    roots = torch.linalg.eigvals(companion)
    real = roots.real[(roots.imag.abs() < 1e-9 * (1 + roots.abs())) & (roots.real > 0)]
    return float(real.min()) if len(real) else math.inf
