"""Spatial: readers. In: a benchmark's question. Out: the text that a model is asked, as the benchmark's own code words it."""

from __future__ import annotations

from collections.abc import Sequence

VIDEO = '<video>'
"""Where a conversation's text holds the video."""
_INTRODUCTION = 'These are frames of a video.'
_BY_LETTER = "Answer with the option's letter from the given choices directly."
_BRIEFLY = 'Please answer the question using a single word or phrase.'


def vsibench_prompt(question: str, options: Sequence[str] | None) -> str:
    """VSI-Bench's prompt; `options` are the lines 'A. chair' of a choice, None or empty where a number is asked for."""
    if options:
        return '\n'.join([_INTRODUCTION, question, 'Options:', *options, _BY_LETTER])
    return '\n'.join([_INTRODUCTION, question, _BRIEFLY])


def sqa3d_prompt(situation: str, question: str) -> str:
    """The situation, the question, and to be brief."""
    return '\n'.join([_INTRODUCTION, f'{situation} {question}', _BRIEFLY])
