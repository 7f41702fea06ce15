"""Export, numpy and onnxruntime alone. In: a folder of exported graphs, frames in time order. Out: boxes; it remembers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from .numpy_boxes import boxes_of
from .numpy_voxels import voxelize

Arrays = dict[str, np.ndarray]
FORMAT = 1


class ExportedDetector:
    """A detector of tools/export.py, one scene at a time.

    Args:
        folder: with export.json and the graphs it names.
        threads: of onnxruntime; 0 lets it choose.
        description: what export.json says, of an export that has none yet; None reads it.

    Attributes:
        description: what export.json says.
        state: what it remembers, by name; empty for a detector without memory.

    Raises:
        ValueError: where the folder is no export, one of another version, or lacks a graph.
    """

    def __init__(self, folder: str | Path, threads: int = 0, description: Mapping[str, Any] | None = None) -> None:
        self.description = read_description(Path(folder)) if description is None else description
        files = [Path(folder) / graph['onnx'] for graph in self.description['graphs']]
        for file in files:
            if not file.is_file():
                raise ValueError(f'{file}, which export.json names, is missing: copy the folder whole, or export again')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._graphs = [(graph, onnxruntime.InferenceSession(file, options, ['CPUExecutionProvider']))
                        for graph, file in zip(self.description['graphs'], files)]
        self.state: Arrays = {}
        self.reset()

    def reset(self) -> None:
        """Forgets everything: a scene begins."""
        self.state = {}
        for name, field in self.description['state'].items():
            empty = np.zeros(field['shape'], dtype=field['dtype'])
            if field['initial'] == 'identity':
                empty[...] = np.eye(field['shape'][-1])
            self.state[name] = empty

    def inputs_of(self, frame: Mapping[str, Any]) -> Arrays:
        """What the graphs take of a frame, by name; arguments as `__call__`."""
        inputs: Arrays = {}
        voxels, cameras = self.description['voxels'], self.description['cameras']
        needed = ['points'] * (voxels is not None) + (['images', *cameras['rig']] if cameras is not None else [])
        needed += ['global_from_lidar', 'time_s'] * bool(self.state)
        missing = [name for name in needed if name not in frame]
        if missing:
            raise ValueError(f'the frame has no {", ".join(missing)}; the detector takes {", ".join(needed)}')
        if voxels is not None:
            points = np.asarray(frame['points'])
            if points.ndim == 2 and points.shape[1] != voxels['num_features']:
                raise ValueError(f'points have {points.shape[1]} columns, the detector takes {voxels["num_features"]}')
            inputs |= voxelize(points, **{key: value for key, value in voxels.items() if key != 'num_features'})
        if cameras is not None:
            shape = (len(cameras['names']), 3, cameras['height'], cameras['width'])
            images = np.asarray(frame['images'])
            if images.shape != shape or images.dtype != np.uint8:
                raise ValueError(f'images are {images.dtype} {images.shape}, the detector takes uint8 {shape}: BGR, of the '
                                 f'cameras {", ".join(cameras["names"])} in this order')
            inputs['images'] = images
            inputs |= {name: np.asarray(frame[name], dtype=np.float32) for name in cameras['rig']}
        if self.state:
            inputs |= poses_of(frame)
        return inputs

    def __call__(self, frame: Mapping[str, Any]) -> Arrays:
        """One frame; `reset` comes before the first of a scene.

        Args:
            frame: points (P, D) as the config's test pipeline gives them; with memory also global_from_lidar (4, 4) and time_s;
                with cameras images (N, 3, h, w) uint8, and img_from_cam, cam_from_lidar and img_aug, (N, 4, 4) each.

        Returns:
            boxes (n, 9) in the LiDAR frame, bottom centres; scores (n,), labels (n,); seen (n,) where the head tells it.

        Raises:
            ValueError: for a frame that lacks something, or points or images that are not those of the detector.
        """
        values = {**self.inputs_of(frame), **self.state}
        for graph, session in self._graphs:
            names = [tensor['name'] for tensor in graph['outputs']]
            taken = {tensor.name: values[tensor.name] for tensor in session.get_inputs()}
            values |= dict(zip(names, session.run(names, taken)))
        self.state = {name: values[field['next']] for name, field in self.description['state'].items()}
        rule = self.description['boxes']
        return boxes_of({name: values[name] for name in rule['arrays']}, rule)


def read_description(folder: Path) -> dict[str, Any]:
    """export.json of a folder; ValueError where there is none, or one that this program does not read."""
    path = folder / 'export.json'
    if not path.is_file():
        raise ValueError(f'{path}: there is no such file; tools/export.py CONFIG CHECKPOINT --out {folder} makes one')
    description = json.loads(path.read_text())
    if description.get('format') != FORMAT:
        raise ValueError(f'{path} has format {description.get("format")}, this reads format {FORMAT}: export again')
    return description


def poses_of(frame: Mapping[str, Any]) -> Arrays:
    """What memory takes of a frame: global_from_lidar, its inverse lidar_from_global (1, 4, 4), time_s (1,), float64."""
    pose = np.asarray(frame['global_from_lidar'], dtype=np.float64)
    return dict(global_from_lidar=pose[None], lidar_from_global=np.linalg.inv(pose)[None],
                time_s=np.array([frame['time_s']], dtype=np.float64))
