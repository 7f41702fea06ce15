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
"""Possible answers; of the kinds that are not here (what, which, rel_distance, order) one of the first two things named."""
SPECIAL = ('<pad>', '<video>', '<image>', '<start>', '<end>', '<answer>')


@dataclass(frozen=True)
class Asked:
    """A question in words: `answer` is one of `candidates`."""

    kind: str
    words: tuple[str, ...]
    answer: str
    candidates: tuple[str, ...]


def in_words(question: Question) -> Asked:
    """A question's words in lower case; names of several answers ('turn left', 'chair, bin') become one word."""
    words = tuple(re.findall(r'[a-z-]+', question.text.lower()))
    named = tuple(dict.fromkeys(word for word in words if word in NAMES))[:2]
    candidates = CLASSES.get(question.kind, named)
    answer = question.answer if question.kind in CLASSES else question.answer.split(',')[0]
    return Asked(question.kind, words, answer, candidates)


class Vocabulary:
    """Word -> number; SPECIAL come first."""

    def __init__(self, asked: list[Asked]) -> None:
        found = {word for one in asked for word in (*one.words, *one.candidates)}
        self.words = (*SPECIAL, *sorted(found))
        self.number = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)
