"""Export. In: config, checkpoint. Out: a folder of graphs and export.json, checked on a scene against the detector.

    DIR/export.json   names, shapes and types of what goes in and out, the empty memory, voxels, NMS, measured differences
    DIR/NAME.onnx     the graphs for onnxruntime; DIR/NAME.pt2 the same for torch.export.load
    DIR/frames/*.npz  with --save-frames: the scene's points and poses, for projects/export/example.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config

from projects.demos.streaming import find_scene, load_detector
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry

from .check import BOX_TOLERANCE, STATE_TOLERANCE, compare
from .description import describe
from .frames import batch_of, frame_arrays
from .graphs import RIG, STAGES, VOXELS, graphs_of, takes_of
from .numpy_voxels import voxelize
from .streaming import Arrays, ExportedDetector, poses_of
from .support import check_exportable
from .tracing import trace


def export(cfg: Config, config: str, checkpoint: str, out: Path, scene: str | None = None, frames: int | None = None,
           save_frames: bool = False, trust: bool = False) -> dict[str, Any]:
    """Exports a detector and compares it with itself on a scene of the test set.

    Args:
        cfg, config: the config and its path.
        scene: name or token; None is the first.
        frames: how many frames of the scene are compared; None is all. Then its first again, to which memory is reset.
        save_frames: write the scene's frames beside the graphs.
        trust: read the checkpoint without protection.

    Returns:
        What export.json says.

    Raises:
        UserError: for what cannot be exported, an unknown scene, or graphs that differ from the detector.
    """
    if frames is not None and frames < 1:
        raise UserError(f'--frames must be at least 1, got {frames}')
    init_registry()
    detector = load_detector(cfg, checkpoint, trust).cpu()
    check_exportable(detector)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    name, positions = find_scene(dataset, scene)
    positions = positions[:frames]
    out.mkdir(parents=True, exist_ok=True)
    for old in _written(out):
        old.unlink(missing_ok=True)  # whatever goes wrong, no part of an earlier export passes for one of this
    description = write_graphs(detector, dataset[positions[0]], out, dataset.metainfo['classes'],
                               dict(config=config, checkpoint=checkpoint))
    if save_frames:
        (out / 'frames').mkdir(exist_ok=True)
        for number, position in enumerate(positions):
            np.savez(out / 'frames' / f'{number:04d}.npz', **frame_arrays(dataset[position]))
    exported = ExportedDetector(out, description=description)
    description['check'] = dict(scene=name, **_checked(detector, exported, dataset, positions))
    (out / 'export.json').write_text(json.dumps(description, indent=1) + '\n')
    return description


def write_graphs(detector: Any, item: Any, out: Path, classes: Any, origin: dict[str, str]) -> dict[str, Any]:
    """Writes the graphs of a detector; `item` of the test set tells sizes. Returns what export.json is to say."""
    values, rig = tensors_of(frame_arrays(item), detector), None
    if detector.with_img_backbone:
        rig = detector.data_preprocessor(batch_of(item))['inputs']['calibration']
    with torch.no_grad():
        graphs, empty = graphs_of(detector, values, rig)
    values |= empty
    described = []
    for graph in graphs:
        graph.takes = takes_of(graph, values)
        said, outputs = trace(graph, values, VOXELS, out)
        described.append(said)
        values |= outputs
    return describe(detector, described, values, empty, classes, origin, rig)


def _written(out: Path) -> list[Path]:
    """All that an export may have written into the folder."""
    graphs = [out / f'{name}.{kind}' for name in STAGES for kind in ('onnx', 'pt2')]
    return [out / 'export.json', *graphs, *(out / 'frames').glob('[0-9]*.npz')]


def tensors_of(frame: Arrays, detector: Any) -> dict[str, torch.Tensor]:
    """What the graphs are traced with, of a frame; at least two voxels, since a size of 1 would stay in the graph."""
    made: Arrays = {name: frame[name] for name in ('images', *RIG) if detector.with_img_backbone}
    if detector.with_points:
        layer = detector.data_preprocessor.voxel_layer
        made |= voxelize(frame['points'], layer.point_cloud_range, layer.voxel_size, layer.max_num_points, layer.max_voxels[1])
        if len(made['voxels']) < 2:
            raise UserError('the first frame of the scene has no points within model.grid: choose another --scene')
    made |= poses_of(frame)
    return {name: torch.from_numpy(array) for name, array in made.items()}


def _checked(detector: Any, exported: ExportedDetector, dataset: Any, positions: list[int]) -> dict[str, Any]:
    worst = dict(boxes=0.0, scores=0.0, state=0.0)
    count = 0
    again = [*positions, positions[0]]
    for number, difference in enumerate(compare(detector, exported, (dataset[position] for position in again))):
        if not difference.within:
            raise UserError(
                f'frame {number} of the scene: the graphs differ from the detector by {difference.boxes:.2g} in boxes, '
                f'{difference.scores:.2g} in scores and {difference.state:.2g} in memory; allowed are {BOX_TOLERANCE}, '
                f'{BOX_TOLERANCE} and {STATE_TOLERANCE}')
        worst = {key: max(value, getattr(difference, key)) for key, value in worst.items()}
        count += difference.count
    return dict(frames=len(positions), boxes_compared=count, largest_difference=worst)
