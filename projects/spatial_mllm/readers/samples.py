"""Spatial: readers. In: a benchmark's files or conversations, and where the videos lie. Out: samples, and bad rows by name.

A bad row never ends a run: it is left out and named, with its file and number.

- VSI-Bench (nyu-visionx/VSI-Bench): questions Apache-2.0; videos of ScanNet, ScanNet++ and ARKitScenes under their own terms.
- SQA3D (SilongYong/SQA3D): questions CC BY 4.0; scenes of ScanNet under its own terms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects.spatial_mllm.readers.geometry_file import geometry_beside
from projects.spatial_mllm.readers.prompts import VIDEO, sqa3d_prompt, vsibench_prompt
from projects.spatial_mllm.readers.video import find_video
from projects.spatial_mllm.scoring.questions import read_sqa3d_questions
from projects.spatial_mllm.scoring.rows import RefusedFileError, Row, read_rows, text_of
from projects.spatial_mllm.scoring.vsibench import CHOICES, EXTRA, NUMBERS


@dataclass(frozen=True)
class Sample:
    """A question about a video.

    Attributes:
        key: what makes it unique in its file.
        prompt: the text that a model is asked; the video stands before it.
        answer: what it should answer; None where nobody knows.
        video: file, or folder of frames.
        geometry: npz file beside it, or None.
        row: the file's own row, which scoring needs.
        where: file and row, for messages.
    """

    key: str
    prompt: str
    answer: str | None
    video: Path
    geometry: Path | None
    row: dict[str, Any]
    where: str


Parts = tuple[str, str, str | None, str]
"""Key, prompt, answer, and the video's name."""


def read_sft(path: str | Path, videos: str | Path, needs_geometry: bool = False) -> tuple[list[Sample], list[str]]:
    """Conversations: `video` (name below `videos`), and `conversations`, of which the human's first text holds one `<video>`.

    Args:
        path: JSON list or JSON lines.
        videos: folder.
        needs_geometry: a video without an npz file beside it is a bad row.

    Raises:
        RefusedFileError: naming the file: nothing of it can be used.
    """
    rows, problems = read_rows(path)
    return _samples(rows, problems, Path(videos), needs_geometry, _sft_parts, str(path))


def read_vsibench(path: str | Path, videos: str | Path, needs_geometry: bool = False) -> tuple[list[Sample], list[str]]:
    """VSI-Bench's rows (`test.jsonl`); the video is VIDEOS/DATASET/SCENE_NAME. Arguments and errors as of `read_sft`."""
    rows, problems = read_rows(path)
    return _samples(rows, problems, Path(videos), needs_geometry, _vsibench_parts, str(path))


def read_sqa3d(questions: str | Path, annotations: str | Path, videos: str | Path,
               needs_geometry: bool = False) -> tuple[list[Sample], list[str]]:
    """SQA3D's two files; the video is VIDEOS/SCENE_ID. A sample's answer is the first. Other arguments as of `read_sft`.

    Raises:
        RefusedFileError: naming the file, where it is not of that kind, or nothing of it can be used.
    """
    joined, problems = read_sqa3d_questions(questions, annotations)
    return _samples(joined.values(), problems, Path(videos), needs_geometry, _sqa3d_parts, str(questions))


def _samples(rows: Iterable[Row], problems: list[str], videos: Path, needs_geometry: bool, parts: Callable[[dict], Parts],
             name: str) -> tuple[list[Sample], list[str]]:
    samples: list[Sample] = []
    found: dict[str, Path] = {}
    for row in rows:
        try:
            key, prompt, answer, video = parts(row.values)
            if video not in found:
                found[video] = find_video(videos, video)
            geometry = geometry_beside(found[video])
            there = geometry.is_file()
            if needs_geometry and not there:
                raise FileNotFoundError(f'no poses beside the video: {geometry} is missing')
        except (ValueError, OSError) as error:  # also a name that is too long
            problems.append(f'{row.where}: {error}; the row is left out')
            continue
        samples.append(Sample(key, prompt, answer, found[video], geometry if there else None, row.values, row.where))
    if not samples:
        raise RefusedFileError(f'{name}: no row can be used. {problems[0] if problems else "It is empty"}')
    return samples, problems


def _sft_parts(row: dict[str, Any]) -> Parts:
    talk = row.get('conversations')
    turns = talk if isinstance(talk, list) and all(isinstance(turn, dict) for turn in talk) else []
    if [turn.get('from') for turn in turns] != ['human', 'gpt']:
        raise ValueError(f'`conversations` must be one turn of `human` and one of `gpt`, got {talk!r:.80}')
    asked, answer = (text_of(turn.get('value')) for turn in turns)
    if asked is None or answer is None or asked.count(VIDEO) != 1:
        raise ValueError(f"the human's `value` must be text with one {VIDEO}, and gpt's `value` text, got {asked!r:.60}")
    return _text(row, 'id'), asked.replace(VIDEO, '').strip('\n'), answer, _text(row, 'video')


def _vsibench_parts(row: dict[str, Any]) -> Parts:
    kind, options = row.get('question_type'), row.get('options')
    if kind not in (*CHOICES, *NUMBERS, *EXTRA):
        raise ValueError(f'`question_type` {kind!r} is none of VSI-Bench')
    if kind not in NUMBERS and not (isinstance(options, list) and options and all(isinstance(one, str) for one in options)):
        raise ValueError(f'a choice needs `options`, a list of texts, got {options!r}')
    prompt = vsibench_prompt(_text(row, 'question'), None if kind in NUMBERS else options)
    return _text(row, 'id'), prompt, text_of(row.get('ground_truth')), f'{_text(row, "dataset")}/{_text(row, "scene_name")}'


def _sqa3d_parts(row: dict[str, Any]) -> Parts:
    answers = row.get('answers')
    first = answers[0] if isinstance(answers, list) and answers else None
    answer = text_of(first.get('answer') if isinstance(first, dict) else first)
    return (_text(row, 'question_id'), sqa3d_prompt(_text(row, 'situation'), _text(row, 'question')), answer,
            _text(row, 'scene_id'))


def _text(row: dict[str, Any], key: str) -> str:
    value = text_of(row.get(key))
    if value is None or not value.strip():
        raise ValueError(f'`{key}` is missing or no text: {row.get(key)!r:.60}')
    return value
