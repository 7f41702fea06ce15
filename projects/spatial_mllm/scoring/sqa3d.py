"""Spatial: scoring. In: an answer to SQA3D and its references, as text. Out: whether it is right, by each of four rules.

SQA3D: Ma et al., ICLR 2023. `strict` and `refined` are plain readings of EM@1 and EM-R; `leo` is the evaluator of LEO (Huang et
al., ICML 2024; embodied-generalist/embodied-generalist) and `script` that of the benchmark's language-model baselines
(SilongYong/SQA3D), both with all that is odd about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TYPES = ('what', 'is', 'how', 'can', 'which', 'other')
"""Of a question, by how it begins; LEO numbers them from 0."""
_WORDS = ('zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen '
          'eighteen nineteen twenty').split()
_NUMBERS = {**{str(number): word for number, word in enumerate(_WORDS)}, '23': 'twenty-three', 'none': 'zero'}
_MISSPELT = dict(letf='left', let='left', tehre='there', rigth='right', rght='right', behine='behind', tv='TV',
                 chai='chair', wasing='washing', waslked='walked', oclock="o'clock")
_COUNT_FROM = 1e-10
"""What LEO's counts of types start at, so that it can divide by them."""


def question_type(question: str) -> str:
    """One of `TYPES`, by the question's first letters: 'Whatever' begins with 'what'."""
    start = question.lstrip().lower()
    return next((kind for kind in TYPES[:-1] if start.startswith(kind)), TYPES[-1])


def clean(text: str) -> str:
    """Lower case; single blanks; letters, digits and , ' - : alone; misspelt words of the data set mended; 0 to 20 and 23 as
    words ('none' is zero); no digit behind a word, no article before one."""
    text = re.sub(' +$', '', text.lower()).lstrip(' ')
    text = re.sub(' {2,}', ' ', text)
    text = re.sub(r"[^a-zA-Z0-9,'\s\-:]+", '', text)
    for wrong, right in _MISSPELT.items():
        text = re.sub(rf'\b{wrong}\b', right, text)
    text = re.sub(r"\bo' +clock\b", "o'clock", text)
    text = re.sub(rf'\b({"|".join(_NUMBERS)})\b', lambda found: _NUMBERS[found[0]], text)
    text = re.sub(r'\b([a-zA-Z]+)[0-9]\b', r'\1', text)
    for article in ('a', 'an', 'the'):
        text = re.sub(rf'\b{article}\b ([a-zA-Z]+)', r'\1', text)
    return re.sub(r'\bbackwards\b', 'backward', text)


def strict(prediction: str, answers: Sequence[str]) -> bool:
    """EM@1: the text is one of the references, as they are written."""
    return prediction in answers


def refined(prediction: str, answers: Sequence[str]) -> bool:
    """EM-R: cleaned and without blanks, it is one of the references, or it or a reference is part of the other.

    Nothing is part of nothing: an empty prediction is never right, and an empty reference never met.
    """
    own = _joined(clean(prediction))
    others = [other for other in (_joined(clean(answer)) for answer in answers) if other]
    return bool(own) and (own in others or any(own in other or other in own for other in others))


def leo(prediction: str, answers: Sequence[str]) -> tuple[int, int]:
    """(em, em_refined) of LEO: references are tried in order, and the first that is met in part ends the search without em.

    An empty prediction is part of every reference.
    """
    own = clean(prediction)
    for other in map(clean, answers):
        if own == other:
            return 1, 1
        if _joined(own) in _joined(other) or _joined(other) in _joined(own):
            return 0, 1
    return 0, 0


def script(prediction: str, answers: Sequence[str]) -> bool:
    """The benchmark's script: the cleaned prediction is part of the first reference, or shares a word with it.

    The reference is not cleaned, and an empty prediction is part of it.
    """
    own, first = clean(prediction), answers[0]
    return own in first or _joined(own) in _joined(first) or bool(set(own.split()) & set(first.split()))


def leo_table(rows: Iterable[tuple[str, int, int]]) -> dict[str, float]:
    """(question type, em, em_refined) of each row -> LEO's metrics: fractions, over all and by number of the type."""
    listed = list(rows)
    table: dict[str, float] = {}
    hits = {'em': [row[1] for row in listed], 'em_refined': [row[2] for row in listed]}
    kinds = [[row[0] == kind for row in listed] for kind in TYPES]
    for number, of_kind in enumerate(kinds):
        table[f'type{number}_count'] = _COUNT_FROM + sum(of_kind)
    table['total_count'] = float(len(listed))
    for name, values in hits.items():
        table[f'{name}_overall'] = sum(values) / len(listed) if listed else 0.0
        for number, of_kind in enumerate(kinds):
            hit = sum(value for value, is_kind in zip(values, of_kind) if is_kind)
            table[f'{name}_type{number}'] = hit / table[f'type{number}_count']
    table['target_metric'] = table['em_refined_overall']
    return table


def _joined(text: str) -> str:
    return ''.join(text.split())
