"""Queries, base of the heads. In: SceneFeatures, what the past adds. Out: losses, boxes. A design decodes the queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from projects.common.settings import read_settings
from projects.memfusion.losses.ranks import zero_of
from projects.memfusion.structures import Readout, SceneFeatures, SceneHead, SceneTruth

from .boxes import BoxCode, DecodeSettings, decode_top
from .denoising import Denoising, NoisyQueries
from .query_losses import LossSettings, QueryLosses
from .query_outputs import Decoded, QueryOutputs

_REACH_M, _HEIGHT_M = 10.0, 10.0
"""How far beyond the grid, and how high or low, centres are kept, as in the published configs."""


class QueryHead(BaseModule, SceneHead):
    """Losses and decoding of all query designs; a design implements `decode_queries`.

    Args:
        num_classes: K.
        point_cloud_range: (x_min, y_min, z_min, x_max, y_max, z_max) metres; the detector fills it in from model.grid.
        box_code: dict(order, heading), see BoxCode.
        loss_cfg: see LossSettings.
        decode_cfg: see DecodeSettings; its post_center_range is made from point_cloud_range.
        denoising: see Denoising; None is none.
    """

    grid_keys: ClassVar[Mapping[str, str]] = dict(point_cloud_range='point_cloud_range')
    typed_parts: ClassVar[Mapping[str, Callable[..., Any]]] = dict(
        box_code=BoxCode, loss_cfg=LossSettings, decode_cfg=DecodeSettings, denoising=Denoising)
    """What is made of the settings that are parts of the config without a type; a design adds its own."""

    def __init__(self, num_classes: int, point_cloud_range: Sequence[float], box_code: dict | None = None,
                 loss_cfg: dict | None = None, decode_cfg: dict | None = None, denoising: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if num_classes < 1:
            raise ValueError(f'pts_bbox_head.num_classes must be at least 1, got {num_classes}')
        self.num_classes = self.matched_classes = num_classes
        self.point_cloud_range = tuple(float(v) for v in point_cloud_range)
        self.code: BoxCode = self.read('box_code', box_code)
        self.denoising: Denoising | None = None if denoising is None else self.read('denoising', denoising)
        self.losses = QueryLosses(self.read('loss_cfg', loss_cfg), self.code, self.denoising)
        self.decoding: DecodeSettings = self.read(
            'decode_cfg', decode_cfg, post_center_range=beyond(self.point_cloud_range))

    @classmethod
    def read(cls, name: str, given: Mapping[str, Any] | None, **defaults: Any) -> Any:
        """What `typed_parts` makes of a setting; ValueError, which names its key, where that does not fit."""
        return read_settings(cls.typed_parts[name], given, f'model.pts_bbox_head.{name}', **defaults)

    def decode_queries(self, features: SceneFeatures, readout: Readout, noisy: NoisyQueries | None) -> Decoded:
        """What the queries, P noisy ones first, find in B frames."""
        raise NotImplementedError

    def forward(self, features: SceneFeatures, readout: Readout, truth: SceneTruth | None) -> QueryOutputs:
        """As SceneHead.forward."""
        self._check_bev(features.bev if readout.bev is None else readout.bev)
        noisy = None
        if truth is not None and self.training and self.denoising is not None:
            noisy = self.denoising.noisy(truth, self.code, self.num_classes, self.point_cloud_range)
        found = self.decode_queries(features, readout, noisy)
        logits, codes = found.logits.float(), found.codes.float()
        if noisy is None:
            return QueryOutputs(logits, codes, found.there, carried=found.carried, proposed=found.proposed)
        first = noisy.num
        return QueryOutputs(logits[:, :, first:], codes[:, :, first:], found.there, noisy, logits[:, :, :first],
                            codes[:, :, :first], found.carried, found.proposed)

    @staticmethod
    def bev_of(features: SceneFeatures, readout: Readout) -> tuple[Tensor, Tensor | None]:
        """The BEV that is read, (B, C, H, W), and which frames' says anything, (B,) bool; None is all.

        A frame without points, whose cameras write no BEV either, has features that say nothing; those that a memory makes do.
        """
        if readout.bev is not None:
            return readout.bev, None
        return features.needed_bev, features.bev_says

    def _check_bev(self, bev: Tensor | None) -> None:
        if self.bev_channels and bev is not None and bev.shape[1] != self.bev_channels:
            raise ValueError(f'model.pts_bbox_head is made for a BEV of {self.bev_channels} channels, but it has '
                             f'{bev.shape[1]}: set the in_channels (or bev_channels) of the head and what model.pts_neck puts '
                             'out alike')

    def loss_by_feat(self, outputs: QueryOutputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """loss_cls and loss_bbox of every layer, see QueryLosses.of; means over the boxes of all ranks.

        A frame whose metainfo says is_labelled=False has no box, and should have none found.
        """
        truth = SceneTruth.of_samples(samples, outputs.logits.device)
        with torch.autocast(outputs.logits.device.type, enabled=False):
            losses = self.losses.of(outputs, truth)
        losses['loss_cls'] = losses['loss_cls'] + zero_of(self)  # whatever was not used, e.g. an encoding without a camera
        return losses

    def boxes_of_queries(self, outputs: QueryOutputs) -> tuple[Tensor, Tensor]:
        """Of every query, for pictures: boxes (L, B, Q, 9) after each layer, bottom centres; scores (B, Q, K) at the end."""
        return self.code.decode(outputs.codes), outputs.logits[-1].sigmoid()

    @torch.no_grad()
    def predict_by_feat(self, outputs: QueryOutputs, metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        """As SceneHead.predict_by_feat; the last layer counts."""
        found = decode_top(outputs.logits[-1], self.code.decode(outputs.codes[-1]), self.decoding, outputs.there)
        return [InstanceData(bboxes_3d=meta['box_type_3d'](one.boxes, box_dim=9), scores_3d=one.scores, labels_3d=one.labels)
                for one, meta in zip(found, metas, strict=True)]


def beyond(around: Sequence[float]) -> list[float]:
    """The range, widened to what detectors on nuScenes keep and lift to: 10 m around, heights of +-10 m at least."""
    low, high = around[:3], around[3:]
    return [low[0] - _REACH_M, low[1] - _REACH_M, min(low[2], -_HEIGHT_M),
            high[0] + _REACH_M, high[1] + _REACH_M, max(high[2], _HEIGHT_M)]
