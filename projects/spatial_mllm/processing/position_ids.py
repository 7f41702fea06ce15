"""Spatial: processing. In: token ids (B, N), grids of images and videos. Out: position ids (3, B, N): time, height, width.

Library versions disagree about the time of video tokens, so these ids are computed here and handed to the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

TIME_RULES = ('float', 'int', 'v5', 'index', 'frames')
PADDED = 1
"""What stands at places that the mask leaves out."""


@dataclass(frozen=True)
class PositionRule:
    """How a vision block's tokens are numbered.

    Args:
        image_id, video_id: tokens that stand for a merged block of patches.
        merge: patches along a side of a token.
        tokens_per_second: time ids in a second.
        time: 'float': floor(index x seconds x tokens_per_second), transformers 4.51 and Spatial-MLLM; 'int': seconds are
            truncated first, 4.57; 'v5': time as 'float', but what follows begins at the block's start + its longer side, 5.24;
            'index': a step of 1, Qwen2-VL; 'frames': every grid row of a video is a block of its own at time 0, Qwen3-VL.
        camera_tokens: whether a video's grid rows begin with a token more, which stands where their first patch does.
    """

    image_id: int
    video_id: int
    merge: int = 2
    tokens_per_second: float = 2.0
    time: str = 'float'
    camera_tokens: bool = False

    def __post_init__(self) -> None:
        if self.time not in TIME_RULES:
            raise ValueError(f'time={self.time!r}: known rules are {", ".join(TIME_RULES)}')

    def times(self, steps: int, seconds: float) -> Tensor:
        """(steps,) time ids within a block."""
        index = torch.arange(steps)
        if self.time == 'index':
            return index
        step = torch.tensor(int(seconds) if self.time == 'int' else seconds, dtype=torch.float32)
        return (index * step * self.tokens_per_second).long()

    def block(self, grid: Sequence[int], seconds: float, kind: str = 'image') -> Tensor:
        """Grid (t, h, w) in patches -> (3, tokens) ids that begin at 0; kind is 'image' or 'video'."""
        steps, rows, columns = grid[0], grid[1] // self.merge, grid[2] // self.merge
        axes = torch.meshgrid(self.times(steps, seconds), torch.arange(rows), torch.arange(columns), indexing='ij')
        ids = torch.stack(axes).flatten(2)
        if self.camera_tokens and kind == 'video':
            ids = torch.cat([ids[..., :1], ids], dim=-1)
        return ids.flatten(1)

    def span(self, grid: Sequence[int], ids: Tensor) -> int:
        """How far what follows a block begins after the block."""
        return max(grid[1:]) // self.merge if self.time == 'v5' else int(ids.max()) + 1


@dataclass
class VisionBlocks:
    """Grids in the order in which their tokens come, through all rows of a batch; seconds per grid step of each video."""

    images: Sequence[Sequence[int]] = ()
    videos: Sequence[Sequence[int]] = ()
    seconds: Sequence[float] | None = None
    _taken: dict[str, int] = field(default_factory=lambda: dict(image=0, video=0), repr=False)

    def __post_init__(self) -> None:
        if self.seconds is not None and len(self.seconds) != len(self.videos):
            raise ValueError(f'{len(self.seconds)} numbers of seconds per grid for {len(self.videos)} videos')

    def next(self, kind: str) -> tuple[Sequence[int], float]:
        """The next grid of this kind and its seconds; images stand at time 0."""
        grids, number = (self.images, self.videos)[kind == 'video'], self._taken[kind]
        if number == len(grids):
            raise ValueError(f'{kind} tokens for more than the {len(grids)} {kind} grids that are given')
        self._taken[kind] += 1
        seconds = 0.0 if kind == 'image' else 1.0 if self.seconds is None else self.seconds[number]
        return grids[number], float(seconds)

    def check_used(self) -> None:
        """Raises ValueError where grids are left over."""
        for kind, grids in (('image', self.images), ('video', self.videos)):
            if self._taken[kind] != len(grids):
                raise ValueError(f'{len(grids)} {kind} grids, but tokens for {self._taken[kind]} of them')


def position_ids(
    input_ids: Tensor, rule: PositionRule, blocks: VisionBlocks, mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Token ids (B, N) -> position ids (3, B, N) int64 and (B, 1) highest id + 1 - N.

    Args:
        input_ids: on the host.
        rule: how vision blocks are numbered; text goes on by 1 on all three axes.
        blocks: the grids; all must be used.
        mask: (B, N), 0 where padding stands, on either side; those places hold 1.

    Raises:
        ValueError: tokens and grids do not fit, naming the row.
    """
    places = torch.full((3, *input_ids.shape), PADDED)
    deltas = torch.zeros(len(input_ids), 1, dtype=torch.int64)
    blocks = split_frames(blocks) if rule.time == 'frames' else blocks
    for row, tokens in enumerate(input_ids):
        kept = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask[row] != 0
        try:
            ids = torch.cat([torch.zeros(3, 0, dtype=torch.int64), *row_parts(tokens[kept].tolist(), rule, blocks)], dim=1)
        except ValueError as error:
            raise ValueError(f'row {row} of the batch: {error}') from error
        places[:, row, kept] = ids
        deltas[row] = (int(ids.max()) + 1 if ids.numel() else 0) - input_ids.shape[1]
    blocks.check_used()
    return places, deltas


def split_frames(blocks: VisionBlocks) -> VisionBlocks:
    """Every grid row of a video as a grid of its own."""
    return VisionBlocks(blocks.images, [(1, *grid[1:]) for grid in blocks.videos for _ in range(grid[0])])


def row_parts(tokens: list[int], rule: PositionRule, blocks: VisionBlocks) -> Iterator[Tensor]:
    """(3, n) ids of each run of text and each vision block of one row, in order."""
    kinds = {rule.image_id: 'image', rule.video_id: 'video'}
    done, at = 0, 0
    while done < len(tokens):
        first = next((place for place in range(done, len(tokens)) if tokens[place] in kinds), len(tokens))
        if first > done:
            yield torch.arange(at, at + first - done).expand(3, -1)
            at, done = at + first - done, first
        if first == len(tokens):
            return
        grid, seconds = blocks.next(kinds[tokens[first]])
        ids = rule.block(grid, seconds, kinds[tokens[first]])
        stop = first + ids.shape[1]
        if any(token != tokens[first] for token in tokens[first:stop]) or stop > len(tokens):
            raise ValueError(f'a {kinds[tokens[first]]} of grid {tuple(grid)} needs {ids.shape[1]} tokens in a row from token '
                             f'{first}')
        yield ids + at
        at, done = at + rule.span(grid, ids), stop
