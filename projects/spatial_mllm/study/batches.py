"""Spatial: study. In: rooms, a tower's tokens. Out: batches: a room's video once, and its questions, which see it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.spatial_mllm.model.poses import FramePoses, Scene
from projects.spatial_mllm.study.data import Rooms
from projects.spatial_mllm.study.rows import Row
from projects.spatial_mllm.study.words import Asked, Vocabulary


@dataclass(frozen=True, eq=False)
class Batch:
    """Of B rooms and all their questions, N in all.

    Attributes:
        inputs: of the model's forward.
        places: (N, 2) row and position of each question's last word, after which the answer comes.
        answers: (N,) index among the candidates; candidates: (N, most) words, padded with -1.
        kinds: of each question.
    """

    inputs: dict[str, Any]
    places: Tensor
    answers: Tensor
    candidates: Tensor
    kinds: list[str]


class Batcher:
    """Makes batches for a row of the study.

    Args:
        rooms: with their questions.
        tokens: (R, T * c, D) of the tower; None for a row without a video.
        vocabulary: numbers of words.
        row: what the model is told.
        seed: of the permutation of poses.
    """

    def __init__(self, rooms: Rooms, tokens: Tensor | None, vocabulary: Vocabulary, row: Row, seed: int = 0) -> None:
        self.rooms, self.vocabulary, self.row = rooms, vocabulary, row
        self.tokens = None if not row.video or tokens is None else tokens if row.images else torch.zeros_like(tokens)
        self.steps = rooms.poses.cam_from_world.shape[1]
        self.camera_tokens = row.spatial.get('connector', {}).get('type') == 'camera_prefix'
        self.poses = _poses(rooms.poses, row.poses, seed)

    def __call__(self, chosen: np.ndarray, kinds: tuple[str, ...], each: int | None = None,
                 rng: np.random.Generator | None = None) -> Batch:
        """Questions of these kinds of these rooms: all, or at most `each` of a kind and room, which `rng` picks."""
        asked = [[one for one in self.rooms.asked[room] if one.kind in kinds] for room in chosen]
        if each is not None and rng is not None:
            asked = [_some(questions, each, rng) for questions in asked]
        prefix, places = self._prefix()
        rows = [self._row(prefix, places, questions) for questions in asked]
        length = max(len(row[0]) for row in rows)
        words = torch.zeros(len(rows), length, dtype=torch.long)
        position = torch.zeros(3, len(rows), length, dtype=torch.long)
        owner = torch.full((len(rows), length), -2)
        at = []
        for number, (numbers, where, whose, answers) in enumerate(rows):
            words[number, :len(numbers)] = numbers
            position[:, number, :len(numbers)] = where
            owner[number, :len(numbers)] = whose
            at += [(number, place) for place in answers]
        flat = [one for questions in asked for one in questions]
        inputs = dict(input_ids=words, position_ids=position, attention_mask=_mask(owner), **self._seen(words, chosen))
        return Batch(inputs, torch.tensor(at), torch.tensor([one.candidates.index(one.answer) for one in flat]),
                     self._candidates(flat), [one.kind for one in flat])

    def _prefix(self) -> tuple[Tensor, Tensor]:
        """Words (p,) and positions (3, p) of what stands before the questions."""
        word = self.vocabulary.number
        if self.tokens is None:
            return torch.tensor([word['<start>'], word['<end>']]), torch.arange(2).expand(3, 2)
        side = round((self.tokens.shape[1] // self.steps) ** 0.5)
        grid = torch.stack(torch.meshgrid(torch.arange(self.steps), torch.arange(side), torch.arange(side), indexing='ij'))
        film = grid.flatten(2)
        if self.camera_tokens:
            film = torch.cat([film[..., :1], film], dim=-1)
        film = film.flatten(1) + 1
        end = torch.full((3, 1), int(film.max()) + 1)
        words = [word['<start>'], *[word['<video>']] * film.shape[1], word['<end>']]
        return torch.tensor(words), torch.cat([torch.zeros(3, 1, dtype=torch.long), film, end], dim=1)

    def _row(self, prefix: Tensor, places: Tensor, asked: list[Asked]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Words, positions, whose each is (-1 the video's, else the question's number), where answers stand."""
        word, start = self.vocabulary.number, int(places.max()) + 1
        numbers, position, owner, answers = [prefix], [places], [torch.full((len(prefix),), -1)], []
        length = len(prefix)
        for number, one in enumerate(asked):
            own = torch.tensor([word[each] for each in one.words])
            numbers.append(own)
            position.append((start + torch.arange(len(own))).expand(3, -1))
            owner.append(torch.full((len(own),), number))
            length += len(own)
            answers.append(length - 1)
        return torch.cat(numbers), torch.cat(position, dim=1), torch.cat(owner), answers

    def _seen(self, words: Tensor, chosen: np.ndarray) -> dict[str, Any]:
        if self.tokens is None:
            return {}
        each, rooms = self.tokens.shape[1] // self.steps, torch.from_numpy(chosen)
        step = torch.full_like(words, -1)
        film = words == self.vocabulary.number['<video>']
        step[film] = torch.arange(len(chosen) * self.steps).repeat_interleave(each + self.camera_tokens)
        matrices = self.poses.img_from_cam
        poses = FramePoses(self.poses.cam_from_world[rooms].flatten(0, 1),
                           None if matrices is None else matrices[rooms].flatten(0, 1))
        scene = Scene(step, poses, self.rooms.points[rooms].flatten(0, 1), self.rooms.camera[rooms].flatten(0, 1))
        side = 2 * round(each ** 0.5)
        grid = torch.tensor([[self.steps, side, side]]).repeat(len(chosen), 1)
        return dict(video_tokens=self.tokens[rooms].flatten(0, 1).float(), video_grid_thw=grid, scene=scene)

    def _candidates(self, asked: list[Asked]) -> Tensor:
        most = max((len(one.candidates) for one in asked), default=1)
        found = torch.full((len(asked), most), -1)
        for number, one in enumerate(asked):
            found[number, :len(one.candidates)] = torch.tensor([self.vocabulary.number[each] for each in one.candidates])
        return found


def _some(asked: list[Asked], each: int, rng: np.random.Generator) -> list[Asked]:
    """At most so many of each kind, in random order."""
    taken: Counter[str] = Counter()
    some = []
    for place in rng.permutation(len(asked)):
        taken[asked[place].kind] += 1
        if taken[asked[place].kind] <= each:
            some.append(asked[place])
    return some


def _mask(owner: Tensor) -> Tensor:
    """(B, 1, n, n) bool: the video sees what was before, a question the video and its own beginning, padding itself."""
    length = owner.shape[1]
    before = torch.ones(length, length, dtype=torch.bool).tril()
    same, film = owner[:, :, None] == owner[:, None, :], owner[:, None, :] == -1
    padding = torch.eye(length, dtype=torch.bool) & (owner == -2)[:, :, None]
    return ((before & (same | film) & (owner != -2)[:, :, None]) | padding)[:, None]


def _poses(poses: FramePoses, whose: str, seed: int) -> FramePoses:
    """The row's: another room's are the next one's; permuted ones change places with each other, but for the first."""
    if whose == 'other':
        matrices = poses.img_from_cam
        return FramePoses(poses.cam_from_world.roll(1, 0), None if matrices is None else matrices.roll(1, 0))
    if whose == 'permuted':
        rooms, steps = poses.cam_from_world.shape[:2]
        rng = np.random.default_rng(seed)
        order = torch.tensor(np.array([[0, *(1 + rng.permutation(steps - 1))] for _ in range(rooms)]))
        moved = poses.cam_from_world[torch.arange(rooms)[:, None], order]
        return FramePoses(moved, poses.img_from_cam)
    return poses
