"""Contract, no network: what a time step shows, what the past adds to it, what a head makes of both. B scenes, batch first.

Everything a frame shows is optional: LiDAR only, cameras only, both. Rows are B scenes of one time step, or the frames of
clips side by side, where a head takes them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .calibration import Calibration
from .frame_images import FrameImages
from .history import History
from .rows import take_rows


@dataclass(frozen=True)
class SceneFeatures:
    """What the single-frame stack makes of B frames, each in its augmented LiDAR frame.

    Attributes:
        bev: (B, C, H, W); None where the model has no BEV features (cameras only, nothing that lifts them).
        levels: (B, N, Ci, h, w) each, zeros where a camera or the frame is missing; None without cameras.
        calibration: of the B frames; None without cameras.
        observed: (B, 1, H, W) bool, BEV cells that hold a point; None without LiDAR.
        fused: (B,) bool, frames whose cameras wrote into the BEV; None where cameras do not.
    """

    bev: Tensor | None = None
    levels: tuple[Tensor, ...] | None = None
    calibration: Calibration | None = None
    observed: Tensor | None = None
    fused: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return self.any_tensor.shape[0]

    @property
    def any_tensor(self) -> Tensor:
        """One of the feature tensors: tells batch, device and type. ValueError where there is none at all."""
        if self.bev is not None:
            return self.bev
        if self.levels:
            return self.levels[0]
        raise ValueError('the frames have neither BEV nor image features: set model.pts_voxel_encoder or model.img_backbone')

    @property
    def needed_bev(self) -> Tensor:
        """bev, for whoever cannot do without; ValueError where there is none."""
        if self.bev is None:
            raise ValueError('BEV features are needed, but the model makes none: set model.pts_voxel_encoder, '
                             'pts_middle_encoder and pts_backbone, or use modules that read image features')
        return self.bev

    @property
    def bev_says(self) -> Tensor | None:
        """(B,) bool, frames into whose BEV a sensor wrote: LiDAR points, or cameras; None where that is not known."""
        if self.observed is None or self.fused is None:
            return self.fused if self.observed is None else self.observed.flatten(1).any(1)
        return self.observed.flatten(1).any(1) | self.fused

    def float(self) -> SceneFeatures:
        """The same in single precision, as box heads want them."""
        levels = None if self.levels is None else tuple(level.float() for level in self.levels)
        return replace(self, bev=None if self.bev is None else self.bev.float(), levels=levels)

    def blank(self) -> SceneFeatures:
        """The same shapes for frames that are not there: zeros where features are, no camera."""
        calibration = None if self.calibration is None else self.calibration.without_cameras()
        return replace(self, bev=None if self.bev is None else torch.zeros_like(self.bev), calibration=calibration,
                       levels=None if self.levels is None else tuple(torch.zeros_like(level) for level in self.levels))

    @staticmethod
    def cat(parts: Sequence[SceneFeatures]) -> SceneFeatures:
        """Joins frames along the batch; all show the same kinds of features, images that are padded to any sizes."""
        if len(parts) == 1:
            return parts[0]
        seen = [FrameImages(part.levels, part.calibration) for part in parts
                if part.levels is not None and part.calibration is not None]
        images = FrameImages.join(seen) if seen else None
        bev = [part.bev for part in parts if part.bev is not None]
        observed = [part.observed for part in parts if part.observed is not None]
        fused = [part.fused for part in parts if part.fused is not None]
        return SceneFeatures(torch.cat(bev) if bev else None, None if images is None else images.levels,
                             None if images is None else images.rig, torch.cat(observed) if observed else None,
                             torch.cat(fused) if fused else None)

    def take(self, rows: Sequence[int]) -> SceneFeatures:
        """The frames at these positions."""
        if list(rows) == list(range(self.batch_size)):
            return self
        return SceneFeatures(
            None if self.bev is None else take_rows(self.bev, rows),
            None if self.levels is None else tuple(take_rows(level, rows) for level in self.levels),
            None if self.calibration is None else self.calibration.select(list(rows)),
            None if self.observed is None else take_rows(self.observed, rows),
            None if self.fused is None else take_rows(self.fused, rows))


@dataclass(frozen=True)
class SceneTruth:
    """What B frames hold; only training is told.

    Attributes:
        boxes: B x (n, 7 or more), augmented LiDAR frame, bottom centres, as mmdet3d's LiDARInstance3DBoxes.
        labels: B x (n,) int64 classes.
    """

    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]

    @classmethod
    def of_samples(cls, samples: Sequence[Any], device: torch.device) -> SceneTruth:
        """The `gt_instances_3d` of B Det3DDataSamples."""
        found = [sample.gt_instances_3d for sample in samples]
        return cls(tuple(one.bboxes_3d.tensor.to(device) for one in found), tuple(one.labels_3d.to(device) for one in found))


@dataclass(frozen=True)
class Readout:
    """What the past adds to B frames.

    Attributes:
        bev: (B, C, H, W) features that remember, in place of the frame's own; None where the module leaves them alone.
        heat: (B, 1, H, W) to be added to the logits of a head's heat maps; None where the module leaves them alone.
        queries: (B, ...) tensors for a query head, by name; empty where there are none.
        past: earlier frames' image features and rigs, for heads that look at them again; None where the module keeps none.
        aux: (B, ...) tensors for the module's own loss and predictions, by name, e.g. occ_logits (B, 1, Hm, Wm).
        carried: what `write` needs of this read; only the module that made it looks inside.
    """

    bev: Tensor | None = None
    queries: Mapping[str, Tensor] = field(default_factory=dict)
    past: History | None = None
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    carried: Any = None
    heat: Tensor | None = None

    @staticmethod
    def of_clips(steps: Sequence[Readout]) -> Readout:
        """T time steps of B clips -> their B x T frames, clip-major, without what was carried."""

        def join(parts: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(parts), dim=1).flatten(0, 1)

        first = steps[0]
        return Readout(
            None if first.bev is None else join([step.bev for step in steps if step.bev is not None]),
            {name: join([step.queries[name] for step in steps]) for name in first.queries},
            History.of_clips([step.past for step in steps if step.past is not None]),
            {name: join([step.aux[name] for step in steps]) for name in first.aux},
            heat=None if first.heat is None else join([step.heat for step in steps if step.heat is not None]))

    def float(self) -> Readout:
        """What a head is given of it, in single precision; whole numbers and float64 stay."""
        queries = {name: value.float() if value.is_floating_point() and value.dtype != torch.float64 else value
                   for name, value in self.queries.items()}
        return replace(self, bev=None if self.bev is None else self.bev.float(), queries=queries,
                       past=None if self.past is None else self.past.float(),
                       heat=None if self.heat is None else self.heat.float())

    def without_gradient(self) -> Readout:
        """The same, and no gradient passes from a head into what the past adds; the module's own loss keeps its."""
        return replace(self, bev=None if self.bev is None else self.bev.detach(),
                       queries={name: value.detach() for name, value in self.queries.items()},
                       past=None if self.past is None else self.past.detach(),
                       heat=None if self.heat is None else self.heat.detach())

    def take(self, rows: Sequence[int]) -> Readout:
        """The frames at these positions, without what was carried."""
        return Readout(None if self.bev is None else take_rows(self.bev, rows),
                       {name: take_rows(value, rows) for name, value in self.queries.items()},
                       None if self.past is None else self.past.take(rows),
                       {name: take_rows(value, rows) for name, value in self.aux.items()},
                       heat=None if self.heat is None else take_rows(self.heat, rows))


@dataclass(frozen=True)
class HeadOutputs:
    """What the 3-D head says about B frames.

    Attributes:
        raw: what the head's forward gave; only the head and a memory made for it look inside.
        decode: raw -> B InstanceData; called once at most, never after a loss, which may change `raw` in place.
    """

    raw: Any
    decode: Callable[[], list[Any]]

    @cached_property
    def found(self) -> list[Any]:
        """B InstanceData: bboxes_3d, scores_3d, labels_3d."""
        return self.decode()
