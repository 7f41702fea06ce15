"""Contract, no network: what is stored of a camera rig, and how it is moved and batched. In, out: tensors of B frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from projects.geometry.exporting import is_exporting

from .packing import Layout, pack, unpack
from .rig_facts import RigFacts

Value = TypeVar('Value')
Rig = TypeVar('Rig', bound='RigTensors')


@dataclass(frozen=True)
class RigTensors:
    """N cameras of B frames. Float32 tensors unless said otherwise.

    Tensors are not edited in place once the rig was asked for something: what it derived from them is kept. What the host
    has to know it asks the tensors once, on the CPU; `to`, `select`, `cat`, `take_cameras`, `with_noise`, `with_shift` and
    `moved` hand the answer on. A rig on a GPU that was changed by dataclasses.replace waits for the GPU once more.

    Attributes:
        cam_names: N names; everything that depends on which camera it is goes by name, not by position.
        img_from_cam: (B, N, 4, 4) raw K, padded; never edited (image augmentation lives in img_aug).
        cam_from_lidar: (B, N, 4, 4) raw LiDAR frame at t_lidar to camera at t_cam, ego motion included.
        img_aug: (B, N, 4, 4) raw pixel to network pixel, a padded homography.
        img_hw_raw, img_hw: (B, N, 2) int64 height and width of the raw and of the network image, padding excluded.
        seen_px: (B, N, 4) left, top, right, bottom: the part of the raw image that was left when the image was turned; all of
            it for images that were not.
        bev_aug: (B, 4, 4) raw LiDAR frame to augmented LiDAR frame.
        calib_noise: (B, N, 4, 4) rigid error on the left of cam_from_lidar; the identity where none was put in.
        distortion_model: (B, N) int64, position in geometry.distortion.MODELS.
        distortion: (B, N, 5) coefficients, zeros beyond those of the model.
        max_radius: (B, N) largest normalised radius that the lens model maps.
        cam_valid: (B, N) bool; a missing camera is masked out.
        t_lidar: (B,) float64 seconds; NaN where the reader was not told.
        t_cam: (B, N) float64 seconds; NaN where the info has none.
        padded_hw: height and width to which the images of the batch are padded, on the right and below; None for not at all:
            then the largest image counts.
    """

    cam_names: tuple[str, ...]
    img_from_cam: Tensor
    cam_from_lidar: Tensor
    img_aug: Tensor
    img_hw_raw: Tensor
    img_hw: Tensor
    seen_px: Tensor
    bev_aug: Tensor
    calib_noise: Tensor
    distortion_model: Tensor
    distortion: Tensor
    max_radius: Tensor
    cam_valid: Tensor
    t_lidar: Tensor
    t_cam: Tensor
    padded_hw: tuple[int, int] | None = None

    @staticmethod
    def cat(calibrations: Sequence[Rig]) -> Rig:
        """Joins frames along B; raises ValueError where the camera names or padded sizes differ."""
        names = {calibration.cam_names for calibration in calibrations}
        if len(names) != 1:
            raise ValueError(f'cannot batch frames of different cameras: {sorted(names)}')
        padded = {calibration.padded_hw for calibration in calibrations}
        if len(padded) != 1:
            raise ValueError(f'cannot batch frames whose images are padded to different (height, width): {padded}')
        joined: dict[str, Any] = {name: torch.cat([getattr(c, name) for c in calibrations]) for name in _TENSORS}
        facts = [known for calibration in calibrations if (known := calibration._known_facts) is not None]
        return replace(calibrations[0], **joined)._keep(RigFacts.cat(facts) if len(facts) == len(calibrations) else None)

    def to(self: Rig, device: torch.device | str) -> Rig:
        """The same on another device, in one copy."""
        target = torch.device(device)  # not a dtype: each tensor keeps its own
        if target == self.bev_aug.device:
            return self
        facts, tensors = self.facts, self.tensors
        if any(tensor.requires_grad for tensor in tensors):
            moved = [tensor.to(target) for tensor in tensors]
        else:
            buffer, layout = pack(tensors)
            staged = buffer.pin_memory() if target.type == 'cuda' and not buffer.is_cuda else buffer
            moved = unpack(staged.to(target, non_blocking=staged is not buffer), layout)
        changes: dict[str, Any] = dict(zip(_TENSORS, moved))
        return replace(self, **changes)._keep(facts)

    @classmethod
    def from_tensors(cls: type[Rig], cam_names: tuple[str, ...], padded_hw: tuple[int, int] | None,
                     tensors: Sequence[Tensor]) -> Rig:
        """Of what `tensors` gives."""
        return cls(cam_names=cam_names, padded_hw=padded_hw, **dict(zip(_TENSORS, tensors)))

    def pin_memory(self: Rig) -> Rig:
        """The same in page-locked memory, as one block; DataLoader(pin_memory=True) calls it."""
        buffer, layout = pack(self.tensors)
        return _unpacked(type(self), self.cam_names, self.padded_hw, buffer.pin_memory(), layout)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as one tensor, since each costs a file descriptor between processes."""
        return _unpacked, (type(self), self.cam_names, self.padded_hw, *pack(self.tensors))

    def select(self: Rig, frames: Tensor | Sequence[int] | Sequence[bool]) -> Rig:
        """Some frames.

        Args:
            frames: (K,) positions or (B,) bools along B, a list or a tensor; for a tensor on a GPU the host waits.
        """
        facts = self._known_facts
        if isinstance(frames, Tensor):
            rows, host = frames, frames.tolist() if facts else []
        else:
            rows, host = None, list(frames)
        if any(isinstance(frame, (bool, np.bool_)) for frame in host):
            host = [b for b, keep in enumerate(host) if keep]
        if rows is None:
            rows = torch.tensor(host, dtype=torch.int64, device=self.bev_aug.device)
        chosen = replace(self, **{name: getattr(self, name)[rows] for name in _TENSORS})
        return chosen._keep(facts.select(host) if facts else None)

    def without_cameras(self: Rig) -> Rig:
        """The rig with all cameras masked out."""
        facts = self._known_facts
        masked = replace(self, cam_valid=torch.zeros_like(self.cam_valid))
        none_there = tuple((0,) * len(self.cam_names) for _ in range(len(self.cam_valid)))
        return masked._keep(replace(facts, cam_valid=none_there) if facts else None)

    def padded_to(self: Rig, padded_hw: tuple[int, int]) -> Rig:
        """The rig of the same images with other padding on the right and below."""
        return self if self.padded_hw == padded_hw else replace(self, padded_hw=padded_hw)._keep(self._known_facts)

    def with_matrices(self: Rig, img_from_cam: Tensor, cam_from_lidar: Tensor, img_aug: Tensor) -> Rig:
        """The same cameras, moved or calibrated anew; what the host knows of them, which is asked for, stays."""
        changed = replace(self, img_from_cam=img_from_cam, cam_from_lidar=cam_from_lidar, img_aug=img_aug)
        return changed._keep(self.facts)

    def take_cameras(self: Rig, order: Sequence[int]) -> Rig:
        """The cameras at these positions, in this order."""
        rows = torch.as_tensor(order, device=self.bev_aug.device)
        facts = self._known_facts
        chosen = replace(self, cam_names=tuple(self.cam_names[i] for i in order), **{
            name: getattr(self, name)[:, rows] for name in _TENSORS if name not in ('bev_aug', 't_lidar')})
        return chosen._keep(facts.take_cameras(order) if facts else None)

    @property
    def facts(self) -> RigFacts:
        """What the host knows."""
        if '_facts' not in self.__dict__:
            self._keep(RigFacts.of(self.distortion_model, self.cam_valid, self.img_hw))
        return self.__dict__['_facts']

    @property
    def cameras_there(self) -> tuple[bool, ...]:
        """B x N bools on the host, camera fastest: cam_valid."""
        return tuple(bool(there) for frame in self.facts.cam_valid for there in frame)

    def _once(self, key: str, make: Callable[[], Value]) -> Value:
        """What `make` makes of the tensors, kept; but made anew each time in an exported graph and for a rig with a gradient,
        whose graph is spent by one backward pass and not there without gradients."""
        if is_exporting() or any(tensor.requires_grad for tensor in self.tensors):
            return make()
        derived = self.__dict__.setdefault('_derived', {})
        if key not in derived:
            with torch.inference_mode(False):  # what is kept may take part in training later
                derived[key] = make()
        return derived[key]

    def _keep(self: Rig, facts: RigFacts | None) -> Rig:
        """Itself, told what the host knows of it."""
        if facts is not None:
            self.__dict__['_facts'] = facts
        return self

    @property
    def _known_facts(self) -> RigFacts | None:
        """The facts; None where they were not asked for yet and the tensors are on the CPU, where there is time to."""
        return self.facts if '_facts' in self.__dict__ or self.bev_aug.device.type != 'cpu' else None

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in the order of the attributes."""
        return [getattr(self, name) for name in _TENSORS]


_TENSORS = tuple(name for name in RigTensors.__dataclass_fields__ if name not in ('cam_names', 'padded_hw'))


def _unpacked(kind: type[Rig], cam_names: tuple[str, ...], padded_hw: tuple[int, int] | None, buffer: Tensor,
              layout: Layout) -> Rig:
    return kind.from_tensors(cam_names, padded_hw, unpack(buffer, layout))
