"""Spatial: made rooms. In: a scene. Out: questions of VSI-Bench's ten types and `exist`, whose answers follow from geometry.

Every type is asked so that within a room each answer is right equally often, for pieces that chance has named: what knows the
room, but not where the named pieces are, is at chance. A type is left out of a room that has not all of its answers. Whatever
needs a pose is asked of pieces that share no frame, and of angles and distances that leave a margin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from projects.spatial_mllm.rooms.furniture import CATEGORIES, NAMES
from projects.spatial_mllm.rooms.layout import HEIGHTS_M
from projects.spatial_mllm.rooms.relations import Relations
from projects.spatial_mllm.rooms.scene import Scene

DISTANCES_M = (1, 2, 3)
_DISTANCE_SLACK_M = 0.25
_RATIO = 1.35
_EDGE_DEG = 25.0
"""How far a direction keeps from straight ahead, straight back, and in quarters from the sides."""
_BACK_DEG = (127.0, 143.0)
"""To the side up to the first, at the back from the second; the benchmark's own limit is 135."""
_QUARTERS = {'front-left': (15.0, 75.0), 'back-left': (105.0, 165.0), 'front-right': (-75.0, -15.0),
             'back-right': (-165.0, -105.0)}


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        kind: VSI-Bench's question type, or of SQA3D the question's first word.
        text: the question.
        answer: as words or a number.
        options: of a choice, in their order; the answer is one of them.
        pieces: indices in the scene of the pieces that it names, in its order.
    """

    kind: str
    text: str
    answer: str
    options: tuple[str, ...] | None = None
    pieces: tuple[int, ...] = ()

    @property
    def letter(self) -> str:
        """Of the right option."""
        if self.options is None:
            raise ValueError(f'{self.kind} has no options')
        return 'ABCD'[self.options.index(self.answer)]


Asker = Callable[[np.random.Generator, Scene, Relations], list[Question]]


def vsi_questions(rng: np.random.Generator, scene: Scene, found: Relations, rounds: int = 1) -> list[Question]:
    """All questions of a room in VSI-Bench's form, in random order; every type at most so many times, of other pieces."""
    askers: tuple[Asker, ...] = (_counting, _absolute_distance, _object_size, _room_size, _direction_easy, _direction_medium,
                                 _direction_hard, _relative_distance, _route, _appearance_order, _exist)
    return ask_all(rng, scene, found, askers, rounds)


def ask_all(rng: np.random.Generator, scene: Scene, found: Relations, askers: tuple[Asker, ...], rounds: int) -> list[Question]:
    """What each asker asks in each round, in random order. One round of an asker is left out where it asks something again."""
    asked: list[Question] = []
    for ask in askers * rounds:
        known = {question.text for question in asked}
        more = ask(rng, scene, found)
        asked += more if known.isdisjoint(question.text for question in more) else []
    return [asked[place] for place in rng.permutation(len(asked))]


def pick(rng: np.random.Generator, allowed: np.ndarray) -> tuple[int, ...] | None:
    """Indices of a random true element; None where there is none."""
    places = np.argwhere(allowed)
    return tuple(int(one) for one in places[rng.integers(len(places))]) if len(places) else None


def shuffled(rng: np.random.Generator, options: tuple[str, ...]) -> tuple[str, ...]:
    """In random order."""
    return tuple(options[place] for place in rng.permutation(len(options)))


def _counting(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    counts = np.bincount(scene.category, minlength=len(CATEGORIES))
    several = np.flatnonzero(counts > 1)
    # two and three, or four and one
    asked = several if len(several) == 2 else [several[0], scene.category[rng.choice(scene.singles)]]
    return [Question('object_counting', f'How many {NAMES[kind]}(s) are in this room?', str(counts[kind]),
                     pieces=tuple(np.flatnonzero(scene.category == kind))) for kind in asked]


def _absolute_distance(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    asked = []
    for metres in DISTANCES_M:
        pair = pick(rng, found.apart & (abs(found.distance - metres) < _DISTANCE_SLACK_M))
        if pair is None:
            return []
        one, other = _called(scene, found, pair)
        text = f'What is the distance between the {one} and the {other}, from closest point to closest point, in whole meters?'
        asked.append(Question('object_abs_distance', text, str(metres), pieces=_pieces(found, pair)))
    return asked


def _object_size(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    asked = []
    for number, height in enumerate(HEIGHTS_M):
        one = pick(rng, scene.pieces.height_class[found.piece] == number)
        if one is None:
            return []
        text = f'What is the longest dimension of the {_called(scene, found, one)[0]}, in centimeters?'
        asked.append(Question('object_size_estimation', text, str(round(100 * height)), pieces=_pieces(found, one)))
    return asked


def _room_size(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    return [Question('room_size_estimation', 'What is the size of this room, in square meters?', f'{scene.area_m2:g}')]


def _triples(found: Relations) -> np.ndarray:
    """(S, S, S) whether no two of three share a frame."""
    apart = found.apart
    return apart[:, :, None] & apart[:, None, :] & apart[None, :, :] & ~np.isnan(found.turn)


def _of_turn(rng: np.random.Generator, found: Relations, answers: dict[str, tuple[float, float]],
             allowed: np.ndarray) -> dict[str, tuple[int, ...]]:
    """A random triple for each answer, by the range of the turn; empty where one has none."""
    chosen = {}
    with np.errstate(invalid='ignore'):
        for answer, (low, high) in answers.items():
            turn = found.turn if low < high else abs(found.turn)
            inside = (turn > min(low, high)) & (turn < max(low, high))
            triple = pick(rng, allowed & inside)
            if triple is None:
                return {}
            chosen[answer] = triple
    return chosen


_EASY = {'left': (_EDGE_DEG, 180 - _EDGE_DEG), 'right': (_EDGE_DEG - 180, -_EDGE_DEG)}
_MEDIUM = {'left': (_EDGE_DEG, _BACK_DEG[0]), 'right': (-_BACK_DEG[0], -_EDGE_DEG), 'back': (180.1, _BACK_DEG[1])}
"""Turn between the two numbers in degrees; in falling order: of the turn without its sign."""
_SIDES = {'easy': 'left or to my right', 'medium': 'left, right or back',
          'hard': 'front-left, front-right, back-left or back-right'}


def _direction_easy(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    chosen = _of_turn(rng, found, {'left': _EASY['left']}, _triples(found))
    options = shuffled(rng, ('left', 'right'))
    asked = {answer: (a, b, c) if answer == 'left' else (a, c, b) for a, b, c in chosen.values() for answer in _EASY}
    return _directions('easy', scene, found, asked, options)


def _direction_medium(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    chosen = _of_turn(rng, found, _MEDIUM, _triples(found))
    return _directions('medium', scene, found, chosen, shuffled(rng, tuple(_MEDIUM)))


def _direction_hard(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    chosen = _of_turn(rng, found, _QUARTERS, _triples(found))
    return _directions('hard', scene, found, chosen, shuffled(rng, tuple(_QUARTERS)))


def _directions(level: str, scene: Scene, found: Relations, chosen: Mapping[str, tuple[int, ...]],
                options: tuple[str, ...]) -> list[Question]:
    text = f'If I am standing by the {{0}} and facing the {{1}}, is the {{2}} to my {_SIDES[level]}?'
    return [Question(f'object_rel_direction_{level}', text.format(*_called(scene, found, triple)), answer, options,
                     _pieces(found, triple)) for answer, triple in chosen.items()]


def _route(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    """Facing b from a, one goes on to b and turns there: the turn is that from a's direction of b to b's direction of c."""
    facing = np.swapaxes(found.turn, 0, 1)  # [a, b, c]: at b facing a, by how much one turns to c
    turned = Relations(**{**found.__dict__, 'turn': (facing + 360) % 360 - 180})
    chosen = _of_turn(rng, turned, _MEDIUM, _triples(turned))
    options = shuffled(rng, ('turn left', 'turn right', 'turn back'))
    text = ('You are a robot beginning at the {0} and facing the {1}. You want to navigate to the {2}. '
            '1. Go forward until the {1}. 2. [please fill in] 3. Go forward until the {2}.')
    return [Question('route_planning', text.format(*_called(scene, found, triple)), f'turn {answer}', options,
                     _pieces(found, triple)) for answer, triple in chosen.items()]


def _relative_distance(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    distance = found.distance
    triple = pick(rng, _triples(found) & (distance[:, None, :] > _RATIO * distance[:, :, None]) & (distance[:, :, None] > 0.3))
    if triple is None:
        return []
    which, near, far = _called(scene, found, triple)
    a, b, c = _pieces(found, triple)
    text = 'From closest point to closest point, which of these objects ({}, {}) is the closest to the {}?'
    return [Question('object_rel_distance', text.format(*order, which), near, order, pieces)
            for order, pieces in (((near, far), (a, b, c)), ((far, near), (a, c, b)))]


def _appearance_order(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    first = found.first
    pair = pick(rng, (first[:, None] >= 0) & (first[:, None] < first[None]))
    if pair is None:
        return []
    one, other = _called(scene, found, pair)
    options = f'{one}, {other}', f'{other}, {one}'
    text = 'What is the order in which the following things appear first in the video: {}?'
    flip = rng.integers(2)
    return [Question('obj_appearance_order', text.format(options[named]), options[0],
                     options if named == flip else options[::-1],
                     _pieces(found, pair if named == 0 else pair[::-1])) for named in (0, 1)]


def _exist(rng: np.random.Generator, scene: Scene, found: Relations) -> list[Question]:
    absent = np.setdiff1d(np.arange(len(CATEGORIES)), scene.category)
    there, missing = rng.choice(found.piece, 2, replace=False), rng.choice(absent, 2, replace=False)
    text = 'Is there a {} in this room?'
    return [*(Question('exist', text.format(scene.called(piece)), 'yes', ('yes', 'no'), (int(piece),)) for piece in there),
            *(Question('exist', text.format(NAMES[kind]), 'no', ('yes', 'no')) for kind in missing)]


def _called(scene: Scene, found: Relations, chosen: tuple[int, ...]) -> list[str]:
    return [scene.called(piece) for piece in found.piece[list(chosen)]]


def _pieces(found: Relations, chosen: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(piece) for piece in found.piece[list(chosen)])
