"""Encodings. In: views of both sides. Out: what their positions, lengths and times are relative to."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from projects.geometry.rigid import invert_affine

from .poses import identity_of, posed_of
from .positions import sorted_times
from .views import Views

NORMS = ('fixed', 'median', 'max', 'learned')
_NO_LENGTH_M = 1e-6


class Frame(NamedTuple):
    """What positions of both sides are relative to.

    Attributes:
        world_from_ref: (B or 1, 4, 4) float64, the reference camera.
        scale: (B or 1) or (), what lengths are multiplied by.
        times: (B or 1, M) sorted times of both sides, where those are seconds that are counted; else None.
    """

    world_from_ref: Tensor
    scale: Tensor
    times: Tensor | None = None


def make_scale(trans_norm: str, trans_scale: float | None) -> nn.Parameter | float:
    """What lengths are multiplied by, or for 'median' and 'max' this times what they divide by; a parameter where it learns.

    Raises:
        ValueError: for a norm that there is not, or a scale that is not positive.
    """
    if trans_norm not in NORMS:
        raise ValueError(f'encoding.trans_norm must be one of {", ".join(NORMS)}, got {trans_norm!r}')
    scale = (1.0 if trans_norm in ('median', 'max') else 1 / 25) if trans_scale is None else float(trans_scale)
    if not scale > 0:
        raise ValueError(f'encoding.trans_scale must be positive, got {trans_scale}')
    return nn.Parameter(torch.tensor(scale, dtype=torch.float64)) if trans_norm == 'learned' else scale


def make_frame(trans_norm: str, trans_scale: Tensor | float, views_q: Views, views_k: Views | None = None,
               reference: str = 'first', time_mode: str = 'zero') -> Frame:
    """Of queries and keys; the reference is a key's camera.

    Args:
        trans_norm, trans_scale: one of NORMS, and what `make_scale` made.
        views_q, views_k: of both sides; None: the queries'.
        reference: 'first', the first view with a pose; 'world', the world.
        time_mode: of the encoding.
    """
    both = (views_q,) if views_k is None or views_k is views_q else (views_k, views_q)
    sides = [side for side in both if side.count]
    device = views_q.cam_from_world.device
    unmoved = torch.eye(4, dtype=torch.float64, device=device)[None]
    world_from_ref = world_from_first(*sides) if sides and reference == 'first' else unmoved
    if isinstance(trans_scale, Tensor):
        scale = trans_scale.double()
    else:
        scale = torch.full((1,), trans_scale, dtype=torch.float64, device=device)
        scale = scale / size_of(trans_norm, *sides) if sides and trans_norm != 'fixed' else scale
    return Frame(world_from_ref, scale, sorted_times(time_mode, *sides))


def world_from_first(*sides: Views) -> Tensor:
    """(B or 1, 4, 4) float64: of the first view of these sides that has a pose; where none has, nothing is moved."""
    batch = max(side.cam_from_world.shape[0] for side in sides)
    if sides[0].posed is None:
        return invert_affine(sides[0].cam_from_world[:, 0].double())
    poses = torch.cat([side.cam_from_world.double().expand(batch, -1, -1, -1) for side in sides], dim=1)
    posed = torch.cat([posed_of(side).expand(batch, -1) for side in sides], dim=1)
    first = posed.int().argmax(1)[:, None, None, None].expand(-1, 1, 4, 4)
    return invert_affine(torch.where(posed.any(1)[:, None, None], poses.gather(1, first)[:, 0], identity_of(poses)))


def size_of(kind: str, *sides: Views) -> Tensor:
    """(B,) float64 metres: median or largest distance of the tokens from their mean; 1 where they are all in one place.

    A camera counts as often as it has tokens, once where it has no grid. So this does not change with the world frame, with
    the order of cameras, or when every token repeats its camera's pose.
    """
    batch = max(side.cam_from_world.shape[0] for side in sides)
    tokens = [1 if side.per == 'token' or not isinstance(side.grid, tuple) else math.prod(side.grid) for side in sides]

    def joined(values: list[Tensor]) -> Tensor:
        return torch.cat([value.repeat_interleave(each, dim=1, output_size=each * value.shape[1]).expand(
            batch, *(-1,) * (value.dim() - 1)) for value, each in zip(values, tokens)], dim=1)

    centers = joined([invert_affine(side.cam_from_world.double())[..., :3, 3] for side in sides])
    posed = joined([posed_of(side) for side in sides])
    centers = torch.where(posed[..., None], centers, torch.zeros_like(centers))
    mean = centers.sum(1) / posed.sum(1).clamp(min=1)[:, None]
    away = (centers - mean[:, None]).square().sum(-1).sqrt()
    if kind == 'max':
        size = torch.where(posed, away, torch.zeros_like(away)).amax(1)
    else:
        size = torch.where(posed, away, torch.full_like(away, torch.nan)).nanmedian(1).values
    return torch.where(size > _NO_LENGTH_M, size, torch.ones_like(size))
