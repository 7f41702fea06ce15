"""Export. In: a detector in eval mode. Out: its stages as modules on named tensors of one frame of one scene.

    encode   voxels, num_points, coordinates, images, the rig            -> bev, observed, fused, level_*
    read     bev, observed, poses, memory_*                              -> remembered, remembered_heat, carried_*
    head     bev or remembered; query heads also observed, level_*, rig  -> boxes, scores, labels (and seen) before NMS
    write    carried_*, poses, memory_*                                  -> next_*

What a detector has no use for is left out: `read` and `write` are there with a memory alone. All slots of it are there always;
which are filled is said by the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.models.dense_heads import CenterHead
from torch import Tensor, nn

from projects.memfusion.heads import scene_head
from projects.memfusion.structures import Calibration, FrameBatch, Readout, SceneFeatures

from .decoding import decode
from .named import named_tensors, with_tensors

Tensors = Mapping[str, Tensor]
STAGES = ('encode', 'read', 'head', 'write')
VOXELS = ('voxels', 'num_points', 'coordinates')
RIG = ('img_from_cam', 'cam_from_lidar', 'img_aug')
POSES = ('global_from_lidar', 'lidar_from_global', 'time_s')
STATE, NEXT, CARRIED = 'memory', 'next', 'carried'
LATER = ('pts_bbox_head', 'task_heads', 'temporal')
"""Parts of the detector that come after `encode`."""
_MANY_FRAMES = 1_000_000
"""Frames that the host says memory has seen: all slots take part, and the graph finds by itself which of them are filled."""


def frame_of(tensors: Tensors) -> FrameBatch:
    """The frame whose poses these are; its BEV frame is the LiDAR's, as in testing."""
    pose, inverse, time_s = (tensors[name] for name in POSES)
    return FrameBatch(metas=(), there=(True,), valid=torch.ones(1, dtype=torch.bool), time_s=time_s, global_from_bev=pose,
                      bev_from_global=inverse, global_from_lidar=pose)


@dataclass(frozen=True)
class Step:
    """What one frame's step through the detector gives and takes; of it the graphs take all that is no tensor.

    Attributes:
        features: of the frame.
        state: an empty one that claims to be full.
        carried: what `write` is handed by `read`.
    """

    features: SceneFeatures
    state: Any
    carried: Any


class Graph(nn.Module):
    """A stage of the detector.

    Args:
        detector: TemporalFusionDetector.
        parts: of it, whose weights the graph holds; a file of torch.export has those of all modules that are registered.
        rig: of a frame with the same cameras, for graphs that read images; None without.

    Attributes:
        takes: names of the tensors that `forward` takes, in order; whoever traces the graph sets them.
    """

    name = ''

    def __init__(self, detector: Any, parts: Iterable[nn.Module], rig: Calibration | None = None) -> None:
        super().__init__()
        self._detectors, self.parts = (detector,), nn.ModuleList(parts)
        # In a tuple, for torch.export copies what a module holds, and a copied rig has forgotten what the host knows.
        self.rigs: tuple[Calibration, ...] = () if rig is None else (rig,)
        self.takes: tuple[str, ...] = ()

    @property
    def detector(self) -> Any:
        """All of it."""
        return self._detectors[0]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """As `run`, without names."""
        return tuple(self.run(dict(zip(self.takes, tensors, strict=True))).values())

    def run(self, tensors: Tensors) -> dict[str, Tensor]:
        """Named tensors -> named tensors."""
        raise NotImplementedError


class EncodeGraph(Graph):
    """The single-frame stack.

    Takes voxels (V, P, D) float32, num_points (V,) and coordinates (V, 3) as z, y, x, int32; images (N, 3, h, w) uint8 and RIG,
    (N, 4, 4) float32 each, see RigTensors.

    Args:
        detector: as in Graph.
        rig: of a frame with the same cameras; None without.
    """

    name = 'encode'

    def __init__(self, detector: Any, rig: Calibration | None = None) -> None:
        super().__init__(detector, [part for name, part in detector.named_children() if name not in LATER], rig)

    def run(self, tensors: Tensors) -> dict[str, Tensor]:
        """As Graph.run."""
        features = self.features(tensors)
        found: dict[str, Tensor] = {}
        for name, value in (('bev', features.bev), ('observed', features.observed), ('fused', features.fused)):
            found |= {} if value is None else {name: value}
        return found | {f'level_{number}': level for number, level in enumerate(features.levels or ())}

    def features(self, tensors: Tensors) -> SceneFeatures:
        """The same, as the detector has them."""
        inputs: dict[str, Any] = dict(clip_shape=(1, 1), frame_valid=[True])
        if 'voxels' in tensors:
            coors = F.pad(tensors['coordinates'], (1, 0))
            inputs['voxels'] = dict(voxels=tensors['voxels'], num_points=tensors['num_points'], coors=coors)
        for rig in self.rigs:
            inputs.update(imgs=self._prepared(tensors['images'], rig), calibration=moved_rig(rig, tensors))
        return self.detector.encode(inputs).at(0, self.detector._wants_levels)

    def _prepared(self, images: Tensor, rig: Calibration) -> Tensor:
        """As ClipDataPreprocessor makes them: normalised, padded on the right and below."""
        assert rig.padded_hw is not None
        preprocessor = self.detector.data_preprocessor
        height, width = rig.padded_hw
        padding = (0, width - images.shape[3], 0, height - images.shape[2])
        return F.pad(preprocessor._normalised(images), padding, value=float(preprocessor.pad_value))[None]


def moved_rig(rig: Calibration, tensors: Tensors) -> Calibration:
    """The rig with the matrices of the frame."""
    return rig.with_matrices(*(tensors[name][None] for name in RIG))


class MemoryGraph(Graph):
    """Base of `read` and `write`.

    Args:
        detector: with model.temporal.
        step: of a frame.
    """

    def __init__(self, detector: Any, step: Step) -> None:
        super().__init__(detector, [detector.temporal])
        self.step = step

    def aligned(self, tensors: Tensors) -> tuple[Any, FrameBatch]:
        """The state in the current frame."""
        frame = frame_of(tensors)
        return self.detector.temporal.align(with_tensors(self.step.state, STATE, tensors), frame), frame


class ReadGraph(MemoryGraph):
    """Moves memory into the current frame and reads it."""

    name = 'read'

    def run(self, tensors: Tensors) -> dict[str, Tensor]:
        """As Graph.run."""
        readout = self.readout(tensors)
        return {name: value for name, value in (('remembered', readout.bev), ('remembered_heat', readout.heat))
                if value is not None} | named_tensors(readout.carried, CARRIED)

    def readout(self, tensors: Tensors) -> Readout:
        """The same, as the detector has it."""
        state, frame = self.aligned(tensors)
        features = replace(self.step.features, bev=tensors['bev'], observed=tensors.get('observed'))
        return self.detector.temporal.read(state, features, frame)


class HeadGraph(Graph):
    """The 3-D head, decoded.

    Args:
        detector: as in Graph.
        rig: as in EncodeGraph, for heads that read images.
    """

    name = 'head'

    def __init__(self, detector: Any, rig: Calibration | None = None) -> None:
        super().__init__(detector, [detector.pts_bbox_head], rig)

    def run(self, tensors: Tensors) -> dict[str, Tensor]:
        """As Graph.run."""
        head = scene_head(self.detector.pts_bbox_head)
        levels = tuple(tensor for name, tensor in tensors.items() if name.startswith('level_'))
        features = SceneFeatures(
            tensors.get('bev'), levels or None, moved_rig(self.rigs[0], tensors) if levels else None,
            tensors.get('observed'), tensors.get('fused'))
        readout = Readout(tensors.get('remembered'), heat=tensors.get('remembered_heat'))
        return decode(self.detector.pts_bbox_head, head.forward(features, readout, None))


class WriteGraph(MemoryGraph):
    """Writes the frame into memory."""

    name = 'write'

    def run(self, tensors: Tensors) -> dict[str, Tensor]:
        """As Graph.run."""
        state, frame = self.aligned(tensors)
        readout = Readout(carried=with_tensors(self.step.carried, CARRIED, tensors))
        return named_tensors(self.detector.temporal.write(state, readout, None, frame), NEXT)


def graphs_of(detector: Any, inputs: Tensors, rig: Calibration | None = None) -> tuple[list[Graph], dict[str, Tensor]]:
    """The graphs in the order in which a frame passes them, and an empty memory by name.

    Args:
        detector: in eval mode, on the CPU.
        inputs: what `encode` takes, and POSES, of any frame.
        rig: its cameras, as ClipDataPreprocessor gives them; None without.
    """
    encode, head, temporal = EncodeGraph(detector, rig), HeadGraph(detector, rig), detector.temporal
    if temporal is None:
        return [encode, head], {}
    features = encode.features(inputs)
    state = replace(temporal.init_state(features), ages=(_MANY_FRAMES,))
    empty = named_tensors(state, STATE)
    read = ReadGraph(detector, Step(features, state, None))
    carried = read.readout({**inputs, **encode.run(inputs), **empty}).carried
    step = replace(read.step, carried=carried)
    return [encode, ReadGraph(detector, step), head, WriteGraph(detector, step)], empty


def takes_of(graph: Graph, values: Tensors) -> tuple[str, ...]:
    """Names of what a graph takes, among what there is when its turn comes."""
    memory = [name for name in values if name.startswith(f'{STATE}_')]
    levels = [name for name in values if name.startswith('level_')]
    wanted = dict(
        encode=(*VOXELS, 'images', *RIG), read=('bev', 'observed', *POSES, *memory),
        head=('remembered' if 'remembered' in values else 'bev', 'remembered_heat', *_beside_bev(graph.detector), *levels),
        write=(*POSES, *memory, *(name for name in values if name.split('_')[0] == CARRIED)))[graph.name]
    return tuple(name for name in wanted if name in values)


def _beside_bev(detector: Any) -> tuple[str, ...]:
    """What a query head takes beside features: which frames' BEV says anything, and the rig where it reads images."""
    if isinstance(detector.pts_bbox_head, CenterHead):
        return ()
    return ('observed', 'fused', *(RIG if detector.pts_bbox_head.needs_levels else ()))
