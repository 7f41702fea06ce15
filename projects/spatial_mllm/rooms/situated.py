"""Spatial: made rooms. In: a scene. Out: questions of SQA3D's kind, asked from where the video begins.

As in `questions.py`, each answer of a type is right equally often within a room.
"""

from __future__ import annotations

import numpy as np

from projects.spatial_mllm.rooms.questions import Question, ask_all, pick
from projects.spatial_mllm.rooms.relations import Relations
from projects.spatial_mllm.rooms.scene import Scene

SITUATION = 'I am standing where the video begins and looking as its first frame does.'
_SIDE_DEG = (50.0, 130.0)
_BEHIND_DEG = 148.0
_RATIO = 1.35
_TURNS = {'left': 'left', 'right': 'right', 'behind': 'around'}


def sqa_questions(rng: np.random.Generator, scene: Scene, found: Relations, rounds: int = 1) -> list[Question]:
    """As `vsi_questions`, in SQA3D's form. Types are the first words; `other` is 'Where is'."""
    return ask_all(rng, scene, found, (_where, _turning, _yes_or_no, _one_of_two, _closer, _in_sight), rounds)


def _sides(found: Relations) -> dict[str, np.ndarray]:
    """Side -> (S,) whether a piece is there. No frame that shows it shows anything of the first frame."""
    azimuth, far = found.azimuth, ~found.near_first
    return {'left': far & (azimuth > _SIDE_DEG[0]) & (azimuth < _SIDE_DEG[1]),
            'right': far & (-azimuth > _SIDE_DEG[0]) & (-azimuth < _SIDE_DEG[1]),
            'behind': far & (abs(azimuth) > _BEHIND_DEG)}


def _where(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    chosen = {side: pick(rng, there) for side, there in _sides(found).items()}
    if None in chosen.values():
        return []
    return [_of_one('other', 'Where is the {} from here?', scene, found, one, side) for side, one in chosen.items() if one]


def _turning(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    chosen = {side: pick(rng, there) for side, there in _sides(found).items()}
    if None in chosen.values():
        return []
    return [_of_one('how', 'How should I turn to face the {}?', scene, found, one, _TURNS[side])
            for side, one in chosen.items() if one]


def _yes_or_no(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    sides = _sides(found)
    side, other = rng.permutation(list(sides))[:2]
    yes, no = pick(rng, sides[side]), pick(rng, sides[other])
    if yes is None or no is None:
        return []
    text = f'Is the {{}} {_placed(side)}?'
    return [_of_one('is', text, scene, found, yes, 'yes'), _of_one('is', text, scene, found, no, 'no')]


def _one_of_two(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    sides = _sides(found)
    side, other = rng.permutation(list(sides))[:2]
    pair = pick(rng, sides[side][:, None] & sides[other][None] & found.apart)
    if pair is None:
        return []
    return _of_two('what', f'What is {_placed(side)}, the {{}} or the {{}}?', scene, found, pair)


def _closer(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    pair = pick(rng, found.apart & (found.range_m[None] > _RATIO * found.range_m[:, None]))
    return [] if pair is None else _of_two('which', 'Which is closer to me, the {} or the {}?', scene, found, pair)


def _in_sight(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    yes, no = pick(rng, found.in_first), pick(rng, scene.pixels[0, found.piece] == 0)
    if yes is None or no is None:
        return []
    text = 'Can I see the {} without turning?'
    return [_of_one('can', text, scene, found, yes, 'yes'), _of_one('can', text, scene, found, no, 'no')]


def _placed(side: str) -> str:
    return 'behind me' if side == 'behind' else f'on my {side}'


def _of_one(kind: str, text: str, scene: Scene, found: Relations, one: tuple[int, ...], answer: str) -> Question:
    piece = int(found.piece[one[0]])
    return Question(kind, text.format(scene.called(piece)), answer, pieces=(piece,))


def _of_two(kind: str, text: str, scene: Scene, found: Relations, pair: tuple[int, ...]) -> list[Question]:
    """The first is right; asked once more with the two swapped."""
    right, wrong = (int(piece) for piece in found.piece[list(pair)])
    return [Question(kind, text.format(scene.called(a), scene.called(b)), scene.called(right), pieces=(a, b))
            for a, b in ((right, wrong), (wrong, right))]
