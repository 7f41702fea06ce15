"""Encodings. In: a rotary block's letters and channels, positions of tokens. Out: frequencies of its pairs, their angles.

A pair of channels (u, w) becomes (c u + s w, -s u + c w), c and s of position times frequency: a turn by minus the angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

AXES = 'THW'
"""Time, row, column."""
LADDERS = ('power', 'octaves')
PAIRS = ('halves', 'adjacent')
MIXES = ('sections', 'interleaved', 'each', 'alternate')
_SHARES = {'THW': (Fraction(1, 4), Fraction(3, 8), Fraction(3, 8))}
"""Of Qwen2.5-VL's mrope_section (16, 24, 24); other letters share evenly."""


@dataclass(frozen=True)
class Rotary:
    """How rotary blocks turn.

    Attributes:
        base: pair i of n turns with frequency base ** (-i / n), for the ladder 'power'.
        scale: multiplies all positions, or those of time, row and column; -1 turns the other way, as GTA's and Qwen's code does
            (a score is q^T R(i - j) k one way and q^T R(j - i) k the other).
        ladder: 'power', or 'octaves': 2 pi 2 ** (i + 1 - n), for positions in 0..1 (GTA).
        pairs: 'halves', channel i with i + n; 'adjacent', 2 i with 2 i + 1.
        mix: what a block of several letters does with its pairs. 'sections': one ladder, cut into a section for each letter
            (Qwen2.5-VL's text); 'interleaved': one ladder, T H W in turn (Qwen3-VL); 'each': each letter in turn has a ladder
            of its own (Qwen2.5-VL's vision tower); 'alternate': the same, the letters' pairs side by side (GTA).
        sections: pairs for each letter of a block of several, for 'sections' and 'interleaved'; None shares T 1/4, H 3/8,
            W 3/8, other letters evenly.
        unit: whether rows and columns are divided by how many there are.
    """

    base: float = 100.0
    scale: float | tuple[float, float, float] = 1.0
    ladder: str = 'power'
    pairs: str = 'halves'
    mix: str = 'sections'
    sections: tuple[int, ...] | None = None
    unit: bool = False

    def __post_init__(self) -> None:
        for name, known in (('ladder', LADDERS), ('pairs', PAIRS), ('mix', MIXES)):
            if getattr(self, name) not in known:
                raise ValueError(f'rotary.{name} must be one of {", ".join(known)}, got {getattr(self, name)!r}')
        if not self.base > 0:
            raise ValueError(f'rotary.base must be positive, got {self.base}')

    def frequencies(self, letters: str, pairs: int, what: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Axis (0 time, 1 row, 2 column) and frequency of every pair of a block.

        Args:
            letters: of T, H, W.
            pairs: n of the block.
            what: names the block in errors.

        Raises:
            ValueError: where the pairs do not divide among the letters.
        """
        axes = [AXES.index(letter) for letter in letters]
        if self.mix in ('each', 'alternate') and len(axes) > 1:
            if pairs % len(axes):
                raise ValueError(f'{what}: {pairs} pairs of channels do not divide among {len(axes)} axes')
            ladder = self._ladder(pairs // len(axes))
            order = [(axis, step) for axis in axes for step in ladder] if self.mix == 'each' else [
                (axis, step) for step in ladder for axis in axes]
        else:
            order = list(zip(self._axes_of_pairs(letters, pairs, what), self._ladder(pairs)))
        scales = self.scale if isinstance(self.scale, (tuple, list)) else (self.scale,) * 3
        return tuple(axis for axis, _ in order), tuple(step * scales[axis] for axis, step in order)

    def _axes_of_pairs(self, letters: str, pairs: int, what: str) -> list[int]:
        axes = [AXES.index(letter) for letter in letters]
        if len(axes) == 1:
            return axes * pairs
        sections = self.sections
        if sections is None:
            shares = [share * pairs for share in _SHARES.get(letters, (Fraction(1, len(axes)),) * len(axes))]
            if any(share.denominator != 1 for share in shares):
                raise ValueError(f'{what}: {pairs} pairs of channels cannot be cut into {[str(share) for share in shares]} for '
                                 f'{", ".join(letters)}; give rotary.sections')
            sections = tuple(int(share) for share in shares)
        if len(sections) != len(axes) or sum(sections) != pairs:
            raise ValueError(f'{what}: rotary.sections {tuple(sections)} must be one number for each of {", ".join(letters)}, '
                             f'{pairs} in all')
        if self.mix == 'sections':
            return [axis for axis, size in zip(axes, sections) for _ in range(size)]
        if letters != 'THW' or max(3 * size for size in sections[1:]) > pairs + 2:
            raise ValueError(f'{what}: rotary.mix=\'interleaved\' is for THW with H and W at most a third of the pairs each, '
                             f'got {letters} with sections {tuple(sections)}')
        of_pair = [0] * pairs
        for axis in (1, 2):
            of_pair[axis:3 * sections[axis]:3] = [axis] * len(of_pair[axis:3 * sections[axis]:3])
        return of_pair

    def _ladder(self, count: int) -> list[float]:
        if self.ladder == 'octaves':
            return [2 * math.pi * 2.0 ** (i + 1 - count) for i in range(count)]
        return [self.base ** (-i / count) for i in range(count)]
