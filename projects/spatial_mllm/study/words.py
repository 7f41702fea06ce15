"""Spatial: study. In: questions of made rooms. Out: their words, the answer as one word, what else it might be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from projects.spatial_mllm.rooms.furniture import NAMES
from projects.spatial_mllm.rooms.questions import Question

CLASSES = {
    'object_counting': ('1', '2', '3', '4'), 'object_abs_distance': ('1', '2', '3'),
    'object_size_estimation': ('60', '80', '100', '120'), 'room_size_estimation': ('16', '20', '25', '30'),
    'object_rel_direction_easy': ('left', 'right'), 'object_rel_direction_medium': ('left', 'right', 'back'),
    'object_rel_direction_hard': ('front-left', 'front-right', 'back-left', 'back-right'),
    'route_planning': ('turn left', 'turn right', 'turn back'), 'exist': ('yes', 'no'),
    'other': ('left', 'right', 'behind'), 'how': ('left', 'right', 'around'), 'is': ('yes', 'no'), 'can': ('yes', 'no'),
}
"""Possible answers."""
_OF_TWO = ('what', 'which', 'object_rel_distance', 'obj_appearance_order')
"""Kinds that are answered by one of the first two things named."""
_OF_A_SIDE, _SIDES = ('is', 'what'), ('left', 'right', 'behind')
SPECIAL = ('<pad>', '<video>', '<image>', '<start>', '<end>')


@dataclass(frozen=True)
class Asked:
    """A question in words: `answer` is one of `candidates`."""

    kind: str
    words: tuple[str, ...]
    answer: str
    candidates: tuple[str, ...]


def in_words(question: Question) -> Asked:
    """A question in short: its kind as one word, then the words in which it differs from others of its kind, in its order.

    Names of several answers ('turn left', 'chair, bin') become one word.
    """
    words = re.findall(r'[a-z-]+', question.text.lower())
    named = tuple(word for word in words if word in NAMES)
    sides = tuple(word for word in words if word in _SIDES) if question.kind in _OF_A_SIDE else ()
    candidates = CLASSES.get(question.kind, tuple(dict.fromkeys(named))[:2])
    answer = question.answer if question.kind in CLASSES else question.answer.split(',')[0]
    return Asked(question.kind, (f'<{question.kind}>', *sides, *named), answer, candidates)


class Vocabulary:
    """Word -> number, of all questions that there may be; SPECIAL come first."""

    def __init__(self) -> None:
        answers = {word for words in CLASSES.values() for word in words}
        kinds = {f'<{kind}>' for kind in (*CLASSES, *_OF_TWO)}
        self.words = (*SPECIAL, *sorted({*NAMES, *answers, *kinds, *_SIDES}))
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)
