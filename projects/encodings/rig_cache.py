"""Encodings. In: views, and how an embedding is made of them. Out: the embedding, made once for a rig that does not change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from projects.geometry.exporting import is_exporting
from projects.geometry.views import Views

Kept = TypeVar('Kept')


class RigCache:
    """Keeps the embedding of the last rig, in eval mode without gradients; elsewhere, and in a graph, nothing is kept.

    It is used again only where every matrix, lens and camera is exactly the same, and so are the weights: they are known by
    their places in memory, by how often they were written, and by their sums, since writing through `.data`, as MMEngine's
    EMAHook does, is not counted. Comparing waits for the device once.
    """

    def __init__(self) -> None:
        self._rig: Tensor | None = None
        self._known: tuple[Any, ...] = ()
        self._kept: Any = None

    def get(self, views: Views, make: Callable[[], Kept], module: nn.Module, key: Hashable = None,
            tensors: Sequence[Tensor] = ()) -> Kept:
        """The embedding of these views.

        Args:
            views: of B frames and N cameras.
            make: makes it.
            module: whose weights `make` uses, and whose mode counts.
            key: what else it depends on, e.g. the level's shape.
            tensors: and what else of the rig, compared as exactly.
        """
        if module.training or torch.is_grad_enabled() or is_exporting():
            self.clear()
            return make()
        parameters = tuple(module.parameters())
        weights = tuple((parameter.data_ptr(), parameter._version) for parameter in parameters)
        device = views.cam_valid.device
        known = (key, views.padded_hw, views.lens_models, device, torch.is_autocast_enabled(device.type), weights)
        rig = torch.cat([part.double().flatten() for part in (
            views.cam_from_bev, views.img_from_cam, views.distortion_model, views.distortion, views.max_radius,
            views.cam_valid, *tensors, *(parameter.sum(dtype=torch.float64) for parameter in parameters))])
        if self._kept is not None and self._rig is not None and known == self._known and torch.equal(rig, self._rig):
            return self._kept
        self._rig, self._known, self._kept = rig, known, make()
        return self._kept

    def clear(self) -> None:
        """Forgets what is kept."""
        self._rig, self._known, self._kept = None, (), None
