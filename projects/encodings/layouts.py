"""Encodings. In: a layout such as 'P1/2 W1/4 H1/4', heads, head dim. Out: which channels of which heads do what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .rotary import Rotary

_PART = re.compile(r'([PI]|[THW]+)(\d+(?:/\d+)?)')
HeadGroups = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Block:
    """Channels of some heads.

    Attributes:
        kind: 'P' for poses, 'R' rotary, 'I' untouched.
        heads, channels: first and last plus one.
        axes, frequencies: of every pair of a rotary block.
        adjacent: whether pairs lie side by side; else they are the halves of the block.
    """

    kind: str
    heads: tuple[int, int]
    channels: tuple[int, int]
    axes: tuple[int, ...] = ()
    frequencies: tuple[float, ...] = ()
    adjacent: bool = False


def parse_layout(layout: HeadGroups, num_heads: int, head_dim: int, rotary: Rotary) -> tuple[Block, ...]:
    """The blocks of all heads.

    Args:
        layout: parts, each a letter and how many channels, or which share of the head dim: P poses, I untouched, T H W rotary
            over time, row, column; several letters are one block (see Rotary.mix). Or by head group: mappings of `heads`, how
            many, and `layout`.
        num_heads, head_dim: of the attention.
        rotary: of all rotary parts.

    Raises:
        ValueError: for parts that are unknown or do not fill the head dim, P that does not divide by 4, an odd rotary part,
            head groups that are not all heads.
    """
    groups = check_layout(layout, num_heads)
    if sum(group['heads'] for group in groups) != num_heads:
        raise ValueError(f'layout: head groups of {[group["heads"] for group in groups]} heads are not the {num_heads} heads '
                         'of the attention')
    blocks: list[Block] = []
    head = 0
    for group in groups:
        blocks += _of_group(group['layout'], (head, head + group['heads']), head_dim, rotary)
        head += group['heads']
    return tuple(blocks)


def check_layout(layout: HeadGroups, num_heads: int = 1) -> list[dict[str, Any]]:
    """The head groups of a layout, one of `num_heads` heads where it has none.

    Raises:
        ValueError: for what is no layout, whatever the attention.
    """
    if not isinstance(layout, str) and not (isinstance(layout, Sequence) and all(
            isinstance(group, Mapping) and set(group) == {'heads', 'layout'} for group in layout)):
        raise ValueError("layout must be text such as 'P1/2 H1/4 W1/4', or a list of head groups, mappings of heads and "
                         f'layout, got {layout!r}')
    groups: list[dict[str, Any]] = [dict(heads=num_heads, layout=layout)] if isinstance(layout, str) else [
        dict(group) for group in layout]
    for group in groups:
        if not isinstance(group['heads'], int) or group['heads'] < 1:
            raise ValueError(f'layout: a head group has at least one head, got {group["heads"]!r}')
        group['layout'] = str(group['layout'])
        for part in group['layout'].split():
            _parsed(group['layout'], part)
    return groups


def _parsed(layout: str, part: str) -> tuple[str, str]:
    """Letters and size of a part."""
    match = _PART.fullmatch(part)
    if match is None or len(set(match[1])) < len(match[1]):
        raise ValueError(f'layout {layout!r}: {part!r} is no part. Parts are P (poses), I (untouched), or T, H, W (rotary '
                         'over time, row, column) with channels or a share of the head dim: P16, W1/4, THW32')
    return match[1], match[2]


def _of_group(layout: str, heads: tuple[int, int], head_dim: int, rotary: Rotary) -> list[Block]:
    blocks: list[Block] = []
    start = 0
    for part in layout.split():
        letters, number = _parsed(layout, part)
        size = Fraction(number) if int(number.rpartition('/')[2]) else Fraction(0)
        size = size * head_dim if '/' in number else size
        what = f'layout {layout!r}, part {part!r}, heads of {head_dim} channels'
        if size.denominator != 1 or size <= 0:
            raise ValueError(f'{what}: {size} channels cannot be')
        channels = (start, start + int(size))
        if letters in 'PI':
            if letters == 'P' and size % 4:
                raise ValueError(f'{what}: {size} channels do not divide by 4, which poses need')
            blocks.append(Block(letters, heads, channels))
        else:
            if size % 2:
                raise ValueError(f'{what}: {size} channels are odd, and rotary parts turn pairs')
            axes, frequencies = rotary.frequencies(letters, int(size) // 2, what)
            blocks.append(Block('R', heads, channels, axes, frequencies, rotary.pairs == 'adjacent'))
        start = channels[1]
    if start != head_dim:
        raise ValueError(f'layout {layout!r} takes {start} channels, but heads have {head_dim}')
    return blocks
