"""Encodings. In: times and patch places of views, rotary blocks. Out: what turns the channels of every token."""

from __future__ import annotations

import torch
from torch import Tensor

from .layouts import Block
from .views import Views

TIME_MODES = ('index', 'seconds', 'zero')


def sorted_times(mode: str, *sides: Views) -> Tensor | None:
    """(B or 1, M) seconds of both sides, rising; None where none are given or needed."""
    times = [side.time for side in sides if side.time is not None and side.time.is_floating_point()]
    if mode == 'zero' or not times:
        return None
    batch = max(time.shape[0] for time in times)
    return torch.cat([time.double().expand(batch, -1) for time in times], dim=1).sort(dim=1).values


def time_positions(views: Views, mode: str, times: Tensor | None, name: str) -> Tensor:
    """(B or 1, N) float64.

    Args:
        views: of one side.
        mode: 'index': integers as they are given, seconds by their place among all different `times`, and without any the
            cameras' own numbers. 'seconds': after the first of `times`. 'zero'.
        times: (B or 1, M), rising.
        name: whose, for errors.

    Raises:
        ValueError: where times are needed and missing.
    """
    like = views.cam_from_world
    if mode == 'zero':
        return torch.zeros(1, views.count, dtype=torch.float64, device=like.device)
    if views.time is None:
        if mode == 'seconds' or views.per == 'token':
            raise ValueError(f'the encoding turns with time, but the views of the {name} have no time: give Views.time, or use '
                             "time_mode='zero'")
        return torch.arange(views.count, dtype=torch.float64, device=like.device)[None]
    time = views.time.double()
    if times is None or not views.time.is_floating_point():
        return time
    if mode == 'seconds':
        return time - times[:, :1]
    batch = max(len(time), len(times))
    times, time = times.expand(batch, -1).contiguous(), time.expand(batch, -1).contiguous()
    new = torch.cat([torch.zeros_like(times[:, :1]), (times.diff(dim=1) > 0).to(times.dtype)], dim=1)
    number = torch.cat([new.cumsum(1), new.sum(1, keepdim=True) + 1], dim=1)  # a later time is one more
    return number.gather(1, torch.searchsorted(times, time))


def turns_of(views: Views, blocks: tuple[Block, ...], mode: str, times: Tensor | None, unit: bool,
             name: str) -> tuple[Tensor, Tensor] | None:
    """Twice (B or 1, heads or 1, N or 1, T or 1, d) float64; None without rotary blocks.

    A channel times the first plus its partner times the second is the channel turned. Where nothing turns, these are 0 and 1,
    for what comes in the partner's place.

    Args:
        views: of one side.
        blocks: of all heads.
        mode, times: as in `time_positions`.
        unit: whether rows and columns are divided by how many there are.
        name: whose, for errors.

    Raises:
        ValueError: where blocks turn with what the views do not have.
    """
    axes = [axis for block in blocks for axis in block.axes]
    if not axes:
        return None
    position: dict[int, Tensor] = {}
    if 0 in axes:
        position[0] = time_positions(views, mode, times, name)[:, :, None]
    if 1 in axes or 2 in axes:
        places = views.places()
        if places is None:
            raise ValueError(f'the encoding turns with rows and columns, but the views of the {name} have no grid: give '
                             'Views.grid')
        if unit and isinstance(views.grid, Tensor) and views.grid.shape[-1] == 2:
            raise ValueError(f'the encoding divides rows and columns by how many there are, which the views of the {name} do '
                             'not say: give Views.grid as (rows, columns), or a tensor of y, x, rows, columns')
        y, x, rows, columns = places.unbind(-1)
        position[1], position[2] = (y / rows.clamp(min=1), x / columns.clamp(min=1)) if unit else (y, x)
    shape = torch.broadcast_shapes(*(value.shape for value in position.values()))
    groups: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for block in blocks:
        groups.setdefault(block.heads, []).append(_turns_of_block(block, position, shape))
    per_group = [[torch.cat(parts, dim=-1)[:, None] for parts in zip(*group)] for group in groups.values()]
    if len(groups) > 1:
        per_group = [[part.expand(-1, last - first, -1, -1, -1) for part in parts]
                     for (first, last), parts in zip(groups, per_group)]
    cos, sin = (torch.cat(parts, dim=1) for parts in zip(*per_group))
    return cos, sin


def _turns_of_block(block: Block, position: dict[int, Tensor], shape: torch.Size) -> tuple[Tensor, Tensor]:
    if not block.axes:
        zeros = next(iter(position.values())).new_zeros(*shape, block.channels[1] - block.channels[0])
        return zeros, zeros + 1
    angle = torch.stack([position[axis].expand(shape) * step for axis, step in zip(block.axes, block.frequencies)], dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return _both(cos, cos, block.adjacent), _both(sin, -sin, block.adjacent)


def _both(first: Tensor, second: Tensor, adjacent: bool) -> Tensor:
    return torch.stack([first, second], dim=-1).flatten(-2) if adjacent else torch.cat([first, second], dim=-1)
