"""Spatial: study. In: settings of rooms. Out: arrays of all rooms: frames, labels, poses, geometry, questions."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.geometry.frame_sampling import build_sampler
from projects.spatial_mllm.geometry_sources.files import PosedFrames
from projects.spatial_mllm.model.connectors import pack_tokens
from projects.spatial_mllm.model.poses import FramePoses
from projects.spatial_mllm.readers.geometry_file import VideoGeometry
from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.generate import make_room
from projects.spatial_mllm.rooms.questions import Question, vsi_questions
from projects.spatial_mllm.rooms.relations import relations
from projects.spatial_mllm.rooms.scene import Scene, generator
from projects.spatial_mllm.rooms.settings import RoomSettings
from projects.spatial_mllm.rooms.situated import sqa_questions
from projects.spatial_mllm.study.words import Asked, in_words

PATCH, MERGE = 14, 2
_CELL = PATCH * MERGE
_MORE = 5
"""Rounds of questions of a room for training, beside its own."""
LONG = 24
"""Frames of a video from which samplers choose."""
SAMPLERS = tuple(f'{kind}_{count}' for kind in ('uniform', 'sa', 'mergeaware_sa') for count in (8, 16))


@dataclass(frozen=True, eq=False)
class Rooms:
    """R rooms of T frames, each frame of c = cells x cells vision tokens.

    Attributes:
        frames: (R, T, H, W, 3) uint8.
        there: (R, T, c, categories) share of a token's pixels; place: (R, T, c, categories, 2) their mean row and column.
        poses: cam_from_world (R, T, 4, 4) relative to the first, K normalised (R, T, 3, 3).
        points: (R, T * c, 32) packed mean points of patches; camera: (R, T, 32), both of each frame seen twice.
        asked: questions of each room.
        chosen: a name of SAMPLERS -> (R, K) the frames that it takes; of long videos only.
    """

    frames: np.ndarray
    there: np.ndarray
    place: np.ndarray
    poses: FramePoses
    points: Tensor
    camera: Tensor
    asked: list[list[Asked]]
    chosen: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.asked)

    def take(self, name: str) -> tuple[Rooms, Tensor]:
        """As a sampler shows them, and which tokens (R, K * c) these are; poses stay relative to the first of all."""
        steps, cells = self.there.shape[1:3]
        index = torch.from_numpy(self.chosen[name])
        rows = torch.arange(len(self))[:, None]
        tokens = (index[:, :, None] * cells + torch.arange(cells)).flatten(1)
        matrices = self.poses.img_from_cam
        poses = FramePoses(self.poses.cam_from_world[rows, index], None if matrices is None else matrices[rows, index])
        own = rows.numpy(), index.numpy()
        return replace(self, frames=self.frames[own], there=self.there[own], place=self.place[own], poses=poses,
                       points=self.points[rows, tokens], camera=self.camera[rows, index], chosen={}), tokens


def load_rooms(folder: Path, settings: RoomSettings, split: str, count: int, workers: int) -> Rooms:
    """Rooms of a split, made in `workers` processes where FOLDER does not hold them already."""
    path = folder / f'{split}_{count}_{key_of(settings)}.npz'
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        tasks = [(settings, split, index) for index in range(count)]
        if workers > 1:
            with ProcessPoolExecutor(workers) as pool:
                _store(path, pool.map(_arrays, tasks, chunksize=16))
        else:
            _store(path, map(_arrays, tasks))
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files}
    asked = [[Asked(one[0], tuple(one[1]), one[2], tuple(one[3])) for one in room] for room in json.loads(str(kept['asked']))]
    poses = FramePoses(torch.from_numpy(kept['poses']), torch.from_numpy(kept['intrinsics']))
    return Rooms(kept['frames'], kept['there'], kept['place'], poses, torch.from_numpy(kept['points']).float(),
                 torch.from_numpy(kept['camera']).float(), asked, {name: kept[name] for name in SAMPLERS if name in kept})


def key_of(settings: RoomSettings) -> str:
    """Names what a room depends on beside its split and number."""
    known = {name: value for name, value in settings.to_json().items() if name not in ('preset', 'rooms')}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]


def _store(path: Path, rooms: Iterable[dict[str, Any]]) -> None:
    listed = list(rooms)
    asked = [room.pop('asked') for room in listed]
    unfinished = path.with_name(f'{path.name}.{os.getpid()}')
    with open(unfinished, 'wb') as file:
        arrays = {name: np.stack([room[name] for room in listed]) for name in listed[0]}
        np.savez(file, asked=np.array(json.dumps(asked)), **arrays)
    os.replace(unfinished, path)


def _arrays(task: tuple[RoomSettings, str, int]) -> dict[str, Any]:
    scene, own, situated = make_room(*task)
    there, place = _labels(scene)
    frames = scene.frames
    count, height, width = frames.shape[:3]
    known = VideoGeometry('made room', np.arange(count), scene.cameras.world_from_cam,
                          np.tile(scene.cameras.intrinsics, (count, 1, 1)), (height, width), depth=scene.depth)
    grid = height // PATCH, width // PATCH
    found = PosedFrames(points=True)(torch.from_numpy(frames), known, grid)
    if found.tokens is None or found.camera is None or found.poses is None or found.poses.img_from_cam is None:
        raise RuntimeError('PosedFrames(points=True) gave no points')
    packed = pack_tokens([found.tokens.repeat_interleave(2, dim=0)], [(count, *grid)], 2, MERGE)
    questions = list(dict.fromkeys(in_words(one) for one in (*own, *situated, *_more_asked(scene, *task))))
    chosen = {name: _choose(name, known) for name in SAMPLERS} if count >= LONG else {}
    return dict(chosen, frames=frames, there=there.astype(np.float16), place=place.astype(np.float16),
                poses=found.poses.relative().cam_from_world.numpy(), intrinsics=found.poses.img_from_cam.numpy(),
                points=packed.half().numpy(), camera=found.camera.repeat(1, 2).half().numpy(),
                asked=[(one.kind, one.words, one.answer, one.candidates) for one in questions])


def _more_asked(scene: Scene, settings: RoomSettings, split: str, index: int) -> list[Question]:
    """A room for training is asked more: nothing but its questions is balanced, and by few of them it is learned by heart."""
    found, asked = relations(scene), []
    for number in range(_MORE if split == 'train' else 0):
        rng = generator(settings, split, index, 10 + number)
        asked += [*vsi_questions(rng, scene, found), *sqa_questions(rng, scene, found)]
    return asked


def _choose(name: str, known: VideoGeometry) -> np.ndarray:
    kind, count = name.rsplit('_', 1)
    fill = {} if kind == 'uniform' else dict(fill=True)
    frames, _ = build_sampler(dict(type=kind, num_frames=int(count), **fill))(known.video())
    return frames


def _labels(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """What the renderer knows of each vision token: categories, their share of its pixels and their mean place."""
    count, height, width = scene.owner.shape
    rows, columns = height // _CELL, width // _CELL
    kind = np.where(scene.owner >= 0, scene.category[scene.owner], -1)
    cells = kind.reshape(count, rows, _CELL, columns, _CELL).transpose(0, 1, 3, 2, 4).reshape(count, -1, _CELL, _CELL)
    masks = cells[..., None] == np.arange(len(CATEGORIES))
    share = masks.mean(axis=(2, 3))
    axis = (np.arange(_CELL) + 0.5) / _CELL
    row = (masks.mean(axis=3) * axis[:, None]).mean(axis=2)
    column = (masks.mean(axis=2) * axis[:, None]).mean(axis=2)
    return share, np.stack([row, column], axis=-1) / np.maximum(share, 1e-9)[..., None]
