"""Spatial: study. In: settings of rooms. Out: arrays of all rooms: frames, labels, poses, geometry, questions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.spatial_mllm.geometry_sources.files import PosedFrames
from projects.spatial_mllm.model.connectors import pack_tokens
from projects.spatial_mllm.model.poses import FramePoses
from projects.spatial_mllm.readers.geometry_file import VideoGeometry
from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.generate import make_room
from projects.spatial_mllm.rooms.scene import Scene
from projects.spatial_mllm.rooms.settings import RoomSettings
from projects.spatial_mllm.study.words import Asked, in_words

PATCH, MERGE = 14, 2
_CELL = PATCH * MERGE


@dataclass(frozen=True, eq=False)
class Rooms:
    """R rooms of T frames, each frame of c = cells x cells vision tokens.

    Attributes:
        frames: (R, T, H, W, 3) uint8.
        there: (R, T, c, categories) share of a token's pixels; place: (R, T, c, categories, 2) their mean row and column.
        poses: cam_from_world (R, T, 4, 4) relative to the first, K normalised (R, T, 3, 3).
        points: (R, T * c, 32) packed mean points of patches; camera: (R, T, 32), both of each frame seen twice.
        asked: questions of each room.
    """

    frames: np.ndarray
    there: np.ndarray
    place: np.ndarray
    poses: FramePoses
    points: Tensor
    camera: Tensor
    asked: list[list[Asked]]

    def __len__(self) -> int:
        return len(self.asked)


def load_rooms(folder: Path, settings: RoomSettings, split: str, count: int, workers: int) -> Rooms:
    """Rooms of a split, made in `workers` processes where FOLDER does not hold them already."""
    path = folder / f'{split}_{count}_{settings.seed}_{settings.num_frames}_{settings.image_size}.npz'
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
                 torch.from_numpy(kept['camera']).float(), asked)


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
    questions = [in_words(question) for question in (*own, *situated)]
    return dict(frames=frames, there=there.astype(np.float16), place=place.astype(np.float16),
                poses=found.poses.relative().cam_from_world.numpy(), intrinsics=found.poses.img_from_cam.numpy(),
                points=packed.half().numpy(), camera=found.camera.repeat(1, 2).half().numpy(),
                asked=[(one.kind, one.words, one.answer, one.candidates) for one in questions])


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
