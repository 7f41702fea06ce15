"""Spatial: made rooms. In: rooms with their questions. Out: rows in the formats of VSI-Bench, SQA3D and supervised tuning."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from projects.spatial_mllm.readers.prompts import VIDEO, sqa3d_prompt, vsibench_prompt
from projects.spatial_mllm.rooms.output_folder import VIDEOS
from projects.spatial_mllm.rooms.questions import Question
from projects.spatial_mllm.rooms.scene import Scene
from projects.spatial_mllm.rooms.situated import SITUATION

DATASET = VIDEOS
"""VSI-Bench's `dataset`: with `scene_name` it names the video."""
_OTHER_WORDS = ('I stand at the place of the first frame, and what it shows is ahead of me.',
                'I begin where the video begins and have not turned yet.')


def room_rows(scene: Scene, asked: Iterable[Question], situated: Iterable[Question]) -> dict[str, Any]:
    """All rows of one room, without ids: they count over the rooms of a split."""
    pose = scene.cameras.world_from_cam[0]
    turn = Rotation.from_euler('z', np.arctan2(pose[1, 2], pose[0, 2]) - np.pi / 2).as_quat()
    position = dict(zip('xyz', np.round(pose[:3, 3], 4).tolist()))
    return dict(
        scene=scene.name, position=position, rotation=dict(zip(('_x', '_y', '_z', '_w'), np.round(turn, 6).tolist())),
        vsibench=[_vsibench_row(scene.name, question) for question in asked],
        sqa3d=[dict(kind=question.kind, question=question.text, answer=question.answer) for question in situated])


def _vsibench_row(name: str, question: Question) -> dict[str, Any]:
    options = None if question.options is None else [f'{letter}. {text}' for letter, text in zip('ABCD', question.options)]
    return dict(dataset=DATASET, scene_name=name, question_type=question.kind, question=question.text, options=options,
                ground_truth=question.answer if options is None else question.letter, answer=question.answer)


def write_tables(folder: Path, rooms: Iterable[dict[str, Any]], first_id: int = 0) -> int:
    """Writes a split's four files, room by room.

    - `vsibench.jsonl`: VSI-Bench's rows, and `answer`, the right option's text.
    - `sqa3d_questions.json`, `sqa3d_annotations.json`: SQA3D's two files. `rotation` turns +y into the direction of view.
    - `sft.jsonl`: conversations over `video`, of both kinds of questions.

    Args:
        folder: of the split.
        rooms: rows of each.
        first_id: from which questions count, of either kind.

    Returns:
        How many questions there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number, situated_number, questions, annotations = first_id, first_id, [], []
    with open(folder / 'vsibench.jsonl', 'w') as vsibench, open(folder / 'sft.jsonl', 'w') as tuning:
        for room in rooms:
            for row in room['vsibench']:
                prompt = vsibench_prompt(row['question'], row['options'])
                talk = _conversation(f'vsibench_{number}', room['scene'], row['question_type'], row['ground_truth'], prompt)
                vsibench.write(json.dumps(dict(id=number, **row)) + '\n')
                tuning.write(json.dumps(talk) + '\n')
                number += 1
            for row in room['sqa3d']:
                question, annotation = _sqa3d_rows(situated_number, room, row)
                questions.append(question)
                annotations.append(annotation)
                prompt = sqa3d_prompt(SITUATION, row['question'])
                talk = _conversation(f'sqa3d_{situated_number}', room['scene'], f'sqa3d_{row["kind"]}', row['answer'], prompt)
                tuning.write(json.dumps(talk) + '\n')
                situated_number += 1
    (folder / 'sqa3d_questions.json').write_text(json.dumps(dict(questions=questions)))
    (folder / 'sqa3d_annotations.json').write_text(json.dumps(dict(annotations=annotations)))
    return number + situated_number - 2 * first_id


def _conversation(name: str, scene: str, kind: str, answer: str, prompt: str) -> dict[str, Any]:
    return dict(id=name, video=f'{DATASET}/{scene}', question_type=kind,
                conversations=[{'from': 'human', 'value': f'{VIDEO}\n{prompt}'}, {'from': 'gpt', 'value': answer}])


def _sqa3d_rows(number: int, room: dict[str, Any], row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    question = dict(scene_id=room['scene'], situation=SITUATION, alternative_situation=list(_OTHER_WORDS),
                    question=row['question'], question_id=number)
    annotation = dict(scene_id=room['scene'], question_type='N/A', answer_type='other', question_id=number,
                      answers=[dict(answer=row['answer'], answer_confidence='yes', answer_id=1)],
                      rotation=room['rotation'], position=room['position'])
    return question, annotation
