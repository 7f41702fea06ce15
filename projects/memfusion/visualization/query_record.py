"""Pictures, what a query head did. In: a SceneHead whose layers say where they look. Out: boxes and looks of a frame, numpy.

    with QueryRecorder(head) as recorder:
        model(...)                              # as always: nothing in `forward` knows of it
        record = recorder.record(row, most=8)   # of the last call's frame `row`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from projects.geometry.projection import apply_homography, whole_window
from projects.geometry.rigid import invert_affine
from projects.memfusion.structures import Calibration, Looks

from .box_set import BoxSet


@dataclass(frozen=True)
class LayerLooks:
    """Where K chosen queries look in one layer of one frame, see structures.Looks; None where a layer does nothing so.

    Attributes:
        points_m: (K, P, 3) augmented LiDAR frame.
        uv_px: (N, K, P, 2) pixels of the cameras' own images, NaN where a point is not read.
        images: (K, N, h, w) share of the attention.
        bev: (K, H, W) share; row 0 at y_min.
        earlier: (K,) share on earlier frames.
    """

    points_m: np.ndarray | None
    uv_px: np.ndarray | None
    images: np.ndarray | None
    bev: np.ndarray | None
    earlier: np.ndarray | None

    @property
    def attends(self) -> bool:
        """Whether it weighs tokens, of images or of the BEV."""
        return self.images is not None or self.bev is not None


@dataclass(frozen=True)
class QueryRecord:
    """One frame of a query head.

    Attributes:
        boxes: (L, Q, 9) of all queries after each layer, bottom centres.
        scores, labels: (Q,) of the best class at the end.
        chosen: (K,) positions of the queries whose looks are kept, best first.
        layers: in their order.
        rig: of the frame, B is 1; None without cameras.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    layers: tuple[LayerLooks, ...]
    rig: Calibration | None

    @property
    def raw_rig(self) -> Calibration:
        """The rig of the images as they came from the cameras; ValueError where there is none."""
        if self.rig is None:
            raise ValueError('the head that was recorded has no cameras, so nothing can be drawn on them')
        size = self.rig.img_hw_raw
        return replace(self.rig, img_aug=torch.eye(4).expand_as(self.rig.img_aug), img_hw=size, seen_px=whole_window(size),
                       padded_hw=None)

    def looks(self, layer: int = -1) -> LayerLooks:
        """What a layer looks at, by its position; ValueError where there is none."""
        if not -len(self.layers) <= layer < len(self.layers):
            raise ValueError(f'layer {layer}: the head that was recorded has {len(self.layers)} layers')
        return self.layers[layer]

    def box(self, k: int) -> BoxSet:
        """The box of the k-th chosen query at the end."""
        query = self.chosen[k:k + 1]
        return BoxSet(self.boxes[-1, query], self.labels[query], self.scores[query])


def records_queries(head: Any) -> bool:
    """Whether a head has queries that can be recorded."""
    return hasattr(head, 'boxes_of_queries')


class QueryRecorder:
    """Keeps the arguments of the last call of a head and of its layers.

    Args:
        head: a SceneHead with `boxes_of_queries`; layers that look are those with a method `query_looks`.
    """

    def __init__(self, head: Any) -> None:
        self._head = head
        self._handles: list[Any] = []
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._outputs: Any = None
        self._rig: Calibration | None = None

    def __enter__(self) -> QueryRecorder:
        original: Callable[..., Any] = self._head.forward

        def forward(features: Any, readout: Any, truth: Any) -> Any:
            self.clear()
            self._rig = features.calibration
            self._outputs = original(features, readout, truth)
            return self._outputs

        def keep(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._calls.append((layer, args, kwargs))

        self._head.forward = forward  # a head is no nn.Module to its caller, so it has no hook
        self._handles = [layer.register_forward_pre_hook(keep, with_kwargs=True)
                         for layer in self._head.modules() if hasattr(layer, 'query_looks')]
        return self

    def __exit__(self, *raised: Any) -> None:
        vars(self._head).pop('forward', None)
        for handle in self._handles:
            handle.remove()
        self.clear()

    def clear(self) -> None:
        """Forgets the last call."""
        self._calls, self._outputs, self._rig = [], None, None

    @property
    def has_call(self) -> bool:
        """Whether the head was called since."""
        return self._outputs is not None

    @torch.no_grad()
    def record(self, row: int = 0, most: int = 8, chosen: Sequence[int] | None = None) -> QueryRecord:
        """What the last call did with the frame at `row` of its batch.

        Args:
            row: of the batch.
            most: so many queries with the highest scores are followed.
            chosen: or these; ValueError where one is not there.
        """
        boxes, scores = self._head.boxes_of_queries(self._outputs)
        best = scores[row].max(-1)
        if chosen is None:
            followed = best.values.argsort(descending=True)[:most]
        elif not all(0 <= query < len(best.values) for query in chosen):
            raise ValueError(f'query {list(chosen)}: the head has queries 0 to {len(best.values) - 1}')
        else:
            followed = torch.tensor(list(chosen), device=scores.device)
        rig = None if self._rig is None else self._rig.to('cpu').select([row])
        layers = tuple(_of_row(layer.query_looks(followed, *args, **kwargs), row, rig) for layer, args, kwargs in self._calls)
        return QueryRecord(_numpy(boxes[:, row]), _numpy(best.values), _numpy(best.indices), _numpy(followed), layers, rig)


def _of_row(looks: Looks, row: int, rig: Calibration | None) -> LayerLooks:
    uv_px = None
    if looks.uv_px is not None and looks.seen is not None and rig is not None:
        network, seen = looks.uv_px[row].double().cpu(), looks.seen[row].cpu()
        raw = apply_homography(invert_affine(rig.img_aug[0].double()), network.flatten(1, 2)).view_as(network)
        uv_px = _numpy(raw.masked_fill(~seen[..., None], torch.nan))
    points, images, bev, earlier = (None if part is None else _numpy(part[row])
                                    for part in (looks.points_m, looks.images, looks.bev, looks.earlier))
    return LayerLooks(points, uv_px, images, bev, earlier)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
