"""Spatial: made rooms. In: settings and a folder. Out: videos with poses and depth, and tables of questions.

The same with any number of processes, and from wherever an earlier run was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from projects.spatial_mllm.rooms.output_folder import VIDEOS, OutputFolder, write_whole
from projects.spatial_mllm.rooms.questions import Question, vsi_questions
from projects.spatial_mllm.rooms.relations import relations
from projects.spatial_mllm.rooms.scene import Scene, generator, make_scene
from projects.spatial_mllm.rooms.settings import SPLITS, RoomSettings
from projects.spatial_mllm.rooms.situated import sqa_questions
from projects.spatial_mllm.rooms.tables import room_rows, write_tables

_AT_ONCE = 8
"""Rooms that a process is given at a time."""
_IDS = 10_000_000
"""Set aside for the questions of a split, so that no two splits share an id."""


def make_room(settings: RoomSettings, split: str, index: int) -> tuple[Scene, list[Question], list[Question]]:
    """A room of a split with its questions, of VSI-Bench's types and of SQA3D's kind; nothing is written."""
    scene = make_scene(settings, split, index)
    found = relations(scene)
    return (scene, vsi_questions(generator(settings, split, index, 5), scene, found, settings.rounds),
            sqa_questions(generator(settings, split, index, 6), scene, found, settings.rounds))


def generate(root: Path, settings: RoomSettings, workers: int = 1, force: bool = False,
             progress: Callable[[int, int], None] | None = None) -> bool:
    """Writes a set of rooms, or what is missing of it.

    Args:
        root: the folder.
        settings: of the rooms.
        workers: processes.
        force: replace rooms with other settings.
        progress: called with the number of rooms that are there, and of all.

    Returns:
        False where all was there already.

    Raises:
        OutputFolderError: the folder holds something else.
        RuntimeError: no room can be made with these settings.
    """
    folder = OutputFolder(root, settings)
    if folder.is_complete() and not force:
        return False
    folder.prepare(force)
    names = {split: [f'{split}_{index:06d}' for index in range(count)] for split, count in zip(SPLITS, settings.rooms)}
    todo = [(root, settings, split, index) for split, listed in names.items() for index, name in enumerate(listed)
            if not folder.part(name).exists()]
    total = sum(settings.rooms)
    for number, _ in enumerate(_made(todo, workers), total - len(todo) + 1):
        if progress is not None:
            progress(number, total)
    for number, (split, listed) in enumerate(names.items()):
        write_tables(root / split, folder.read_parts(listed), number * _IDS)
    folder.finish()
    return True


def _made(todo: list[tuple[Path, RoomSettings, str, int]], workers: int) -> Iterator[None]:
    if workers <= 1 or len(todo) <= 1:
        yield from map(_write_room, todo)
        return
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(_write_room, todo, chunksize=min(_AT_ONCE, -(-len(todo) // workers)))


def _write_room(task: tuple[Path, RoomSettings, str, int]) -> None:
    """Frames, then poses and depth, then the questions, which say that the room is finished."""
    root, settings, split, index = task
    scene, asked, situated = make_room(settings, split, index)
    frames = root / VIDEOS / scene.name
    frames.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(scene.frames):
        if not cv2.imwrite(str(frames / f'{number:06d}.png'), frame[..., ::-1]):
            raise OSError(f'{frames}: a frame cannot be written')
    with open(frames.with_suffix('.npz'), 'wb') as file:
        np.savez(file, world_from_cam=scene.cameras.world_from_cam, intrinsics=scene.cameras.intrinsics, depth=scene.depth,
                 image_hw=np.array(scene.frames.shape[1:3]))
    write_whole(OutputFolder(root, settings).part(scene.name), json.dumps(room_rows(scene, asked, situated)))
