"""Study, policies. In: drives. Out: how much of what was seen and is hidden now the frames in memory hold, by policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from projects.geometry.frame_sampling import KeptFrames, build_keeper

from .drive import CELLS, FRAME_S, MAP_M, Drive, cell_centres, make_drive

SLOTS = 5
ROWS: dict[str, tuple[int, dict[str, Any] | None]] = {
    'oldest goes, `mem_every=1`': (1, None), 'oldest goes, `mem_every=2`': (2, None), 'oldest goes, `mem_every=4`': (4, None),
    'oldest goes, `mem_every=8`': (8, None), "`mem_policy=dict(type='uniform')`": (1, dict(type='uniform')),
    "`mem_policy=dict(type='fps')`": (1, dict(type='fps')), "`mem_policy=dict(type='sa')`": (1, dict(type='sa'))}
"""Every how many frames one is written, and which goes."""
AGES_S = (2.0, 10.0)
COLUMNS = ('all', 'driving', 'standing', 'seen within 2 s', '2 to 10 s ago', 'over 10 s ago')


def held_frames(drive: Drive, mem_every: int, policy: dict[str, Any] | None) -> list[list[int]]:
    """Numbers of the frames that memory holds when each frame reads it."""
    poses, cells = torch.from_numpy(drive.global_from_ego), torch.from_numpy(drive.visible)
    keeper = None if policy is None else build_keeper(policy)
    held: list[int] = []
    history = []
    for frame in range(len(poses)):
        history.append(list(held))
        if frame % mem_every:
            continue
        held.append(frame)
        if len(held) > SLOTS:
            places = list(range(1, SLOTS + 1))
            if keeper is not None:
                places = keeper.keep(KeptFrames(
                    torch.ones(1, SLOTS + 1, dtype=torch.bool), FRAME_S * torch.tensor([held], dtype=torch.float64),
                    poses[held][None], cells[held][None], (-MAP_M, -MAP_M, -5, MAP_M, MAP_M, 3)))[0].tolist()
            held = [held[place] for place in places]
    return history


def looked_up(drive: Drive) -> np.ndarray:
    """(T, T, CELLS, CELLS) bool: whether frame j, for j before t, saw the place of a cell of frame t's map."""
    there = np.zeros((len(drive.visible), *drive.visible.shape), bool)
    for frame, pose in enumerate(drive.global_from_ego):
        places = cell_centres() @ (np.linalg.inv(drive.global_from_ego[:frame]) @ pose).swapaxes(1, 2)[:, None]
        column, row = np.moveaxis(np.floor((places[..., :2] + MAP_M) * CELLS / (2 * MAP_M)).astype(int), -1, 0)
        inside = (column >= 0) & (column < CELLS) & (row >= 0) & (row < CELLS)
        clipped = (part.clip(0, CELLS - 1) for part in (row, column))
        there[frame, :frame] = drive.visible[(np.arange(frame)[:, None, None], *clipped)] & inside
    return there


def shares(drive: Drive, there: np.ndarray, history: Sequence[Sequence[int]]) -> np.ndarray:
    """(2, columns): cells hidden now but seen before, and those of them that a frame in memory has seen."""
    total = np.zeros((2, len(COLUMNS)))
    for frame, held in enumerate(history):
        seen = there[frame, :frame]
        hidden = seen.any(axis=0) & ~drive.visible[frame]
        if not hidden.any():
            continue
        age_s = FRAME_S * (1 + seen[::-1].argmax(axis=0))
        known = there[frame, list(held)].any(axis=0) if held else np.zeros_like(hidden)
        groups = (hidden, hidden & ~drive.stands[frame], hidden & drive.stands[frame], hidden & (age_s <= AGES_S[0]),
                  hidden & (age_s > AGES_S[0]) & (age_s <= AGES_S[1]), hidden & (age_s > AGES_S[1]))
        total += [[group.sum() for group in groups], [(group & known).sum() for group in groups]]
    return total


def compare(seeds: Sequence[int]) -> str:
    """The Markdown table over the drives of all seeds, in percent."""
    totals = {name: np.zeros((2, len(COLUMNS))) for name in ROWS}
    for seed in seeds:
        drive = make_drive(seed)
        there = looked_up(drive)
        for name, (mem_every, policy) in ROWS.items():
            totals[name] += shares(drive, there, held_frames(drive, mem_every, policy))
    lines = [f'| {SLOTS} slots | {" | ".join(COLUMNS)} |', '|---' * (len(COLUMNS) + 1) + '|']
    lines += [f'| {name} | ' + ' | '.join(f'{share:.1f}' for share in 100 * held / could) + ' |'
              for name, (could, held) in totals.items()]
    return '\n'.join(lines)
