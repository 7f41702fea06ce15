"""Heads. In: BEV features that remember (V, C, H, W), agents. Out: futures of true and of detected agents; losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from projects.geometry import BEVGrid, Surroundings, rasterize_box_batch, sample_bilinear
from projects.memfusion.losses.ranks import zero_of
from projects.memfusion.losses.trajectory_losses import TrajectoryLoss
from projects.memfusion.structures import KINEMATICS, Agents, Forecast, FrameMeta, take_rows
from projects.memfusion.structures.detected_agents import detected_agents

from .task_head import TaskHead

AGENTS, DETECTED = 'agents', 'pred_detected_futures'


@MODELS.register_module()
class ForecastHead(TaskHead):
    """Forecasting beside detection, on one BEV and one memory: detections in, futures out.

    The BEV features of now, after memory, are pooled under each agent's box; with the kinematics they go into a TrajectoryHead.
    In training agents are the true ones. In testing they are the true ones (`pred_futures`) and, where the detector has found
    boxes, those found within `match_m` of a true one (`pred_detected_futures`): box and velocity are then the detector's own,
    and there is no past but what memory holds.

    Args:
        in_channels: C of the BEV features.
        point_cloud_range: what the BEV covers, metres.
        feature_dim: channels that are pooled.
        head: settings of the TrajectoryHead.
        loss: dict(type='TrajectoryLoss', ...).
        match_m: metres.
        around: settings of Surroundings ({} is the usual ones): the maps at these points around each agent, in its own frame,
            are looked at as well; None is under its box alone.
        unknown_past: share of the training agents that are shown without their past, as detections are.
        loss_weight: multiplies the losses.
    """

    needs = 'bev'
    field = 'pred_futures'
    grid_keys = dict(point_cloud_range='point_cloud_range')

    def __init__(
        self,
        in_channels: int,
        point_cloud_range: Sequence[float],
        feature_dim: int = 64,
        head: dict | None = None,
        loss: dict | None = None,
        match_m: float = 2.0,
        unknown_past: float = 0.5,
        loss_weight: float = 1.0,
        around: Mapping[str, Sequence[float]] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        if not 0 <= unknown_past <= 1 or match_m <= 0:
            raise ValueError(f'ForecastHead: unknown_past must lie in 0..1 and match_m above 0, got {unknown_past} and '
                             f'{match_m}')
        self.point_cloud_range = tuple(float(value) for value in point_cloud_range)
        self.match_m, self.unknown_past = match_m, unknown_past
        self.layers = nn.Sequential(nn.Conv2d(in_channels, feature_dim, 3, padding=1), nn.ReLU(inplace=True),
                                    nn.Conv2d(feature_dim, feature_dim, 3, padding=1))
        self.around = None if around is None else Surroundings.of('around', around)
        width = feature_dim * (1 + (0 if self.around is None else self.around.num_points))
        self.head: Any = MODELS.build({'type': 'TrajectoryHead', **(head or {}), 'feature_dim': width})
        self.loss_futures: Any = TrajectoryLoss() if loss is None else MODELS.build(loss)

    def forward(self, bev: Tensor, agents: Agents) -> Forecast:
        """(V, C, H, W) and the agents of V scenes -> their futures."""
        maps = self.layers(bev).float()
        boxes = agents.boxes[:, :, -1]
        pooled, flags = pool_boxes(maps, boxes, agents.valid, self.point_cloud_range)
        if self.around is not None:
            seen = sample_at(maps, self.around.places_m(boxes), self.point_cloud_range).flatten(2) * agents.valid[..., None]
            pooled = torch.cat([pooled, seen], dim=-1)
        length = agents.num_frames
        features = F.pad(pooled[:, :, None], (0, 0, length - 1, 0))  # memory is of now, and holds what earlier frames showed
        return self.head(agents, features, F.pad(flags[..., None], (length - 1, 0)))

    def compute_losses(self, feats: Tensor, samples: Sequence[Det3DDataSample], calibration: Any = None) -> dict[str, Tensor]:
        """TrajectoryLoss over the agents of all ranks, of the frames that have any; see TaskHead.loss."""
        rows = [row for row, sample in enumerate(samples) if sample.get(AGENTS) is not None]
        agents = Agents.cat([samples[row].get(AGENTS) for row in rows]).to(feats.device) if rows else no_agents(feats)
        agents = self._without_past(agents)
        forecast = self(take_rows(feats, rows), agents)
        known = agents.future_valid & agents.valid[..., None]
        losses = self.loss_futures(forecast.modes, forecast.logits, agents.future_xy, known)
        return {**losses, 'loss_unread': zero_of(self) + feats.new_zeros(())}

    def _without_past(self, agents: Agents) -> Agents:
        """Some agents of a batch, drawn, that are known as detections are: the last frame's place and velocity alone."""
        # Drawn on the CPU: its generator is the one that a resumed run restores.
        drawn = torch.rand(agents.valid.shape) < self.unknown_past
        keep = ~drawn.to(agents.valid.device, non_blocking=True)[..., None] | (
            torch.arange(agents.num_frames, device=agents.valid.device) == agents.num_frames - 1)
        kinematics = agents.kinematics * keep[..., None]
        # Acceleration and yaw rate come from earlier labels.
        from_before = [KINEMATICS.index(name) for name in ('acceleration', 'yaw_rate')]
        kinematics[..., from_before] *= ~drawn.to(kinematics.device, non_blocking=True)[..., None, None]
        return replace(agents, history_valid=agents.history_valid & keep, kinematics=kinematics)

    @torch.no_grad()
    def predict(self, feats: Tensor, samples: Sequence[Det3DDataSample], calibration: Any = None) -> None:
        """Sets `pred_futures` and, where the sample has boxes, `pred_detected_futures`; see `as_field` for what they hold."""
        for row, sample in enumerate(samples):
            if sample.get(AGENTS) is None:
                continue
            agents, bev = sample.get(AGENTS).to(feats.device), feats[row:row + 1]
            sample.set_field(as_field(self(bev, agents), agents), self.field)
            boxes = sample.get('pred_instances_3d')
            if boxes is not None and boxes.bboxes_3d.tensor.shape[1] >= 9:
                pose = torch.from_numpy(FrameMeta.from_metainfo(sample.metainfo).global_from_bev)
                found = detected_agents(agents, boxes.bboxes_3d.tensor, boxes.scores_3d, pose, self.match_m)
                sample.set_field(as_field(self(bev, found), found), DETECTED)


def as_field(forecast: Forecast, agents: Agents) -> BaseDataElement:
    """Futures of one scene's agents: tokens, modes and global_xy (n, M, 12, 2) metres, probabilities (n, M)."""
    count = len(agents.tokens[0])
    return BaseDataElement(tokens=agents.tokens[0], modes=forecast.modes[0, :count],
                           global_xy=forecast.global_xy(agents)[0, :count],
                           probabilities=forecast.logits[0, :count].float().softmax(dim=-1))


def pool_boxes(maps: Tensor, boxes: Tensor, valid: Tensor, point_cloud_range: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Means of maps (B, C, H, W) under boxes (B, A, 7) -> (B, A, C), and flags (B, A): 0 where no cell is under it.

    There it is a bilinear sample at the box's centre; 0 outside of the map.
    """
    grid = BEVGrid.of_shape(point_cloud_range, maps.shape[-2:])
    batch, count = valid.shape
    under = rasterize_box_batch(boxes.reshape(-1, 1, 7), valid.reshape(-1, 1), grid).view(batch, count, *grid.bev_shape)
    under = under.to(maps)
    cells = under.sum(dim=(-2, -1))
    inside = torch.einsum('bahw,bchw->bac', under, maps) / cells.clamp(min=1)[..., None]
    sampled = sample_at(maps, boxes[..., None, :2], point_cloud_range)[:, :, 0]
    return torch.where(cells[..., None] > 0, inside, sampled) * valid[..., None], (cells > 0).to(maps)


def sample_at(maps: Tensor, places_m: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """Maps (B, C, H, W) at places (B, A, P, 2) in metres, bilinearly -> (B, A, P, C); 0 outside of the map."""
    batch, count, points, _ = places_m.shape
    if not batch or not count:
        return maps.new_zeros(batch, count, points, maps.shape[1])
    x_min, y_min, _, x_max, y_max, _ = point_cloud_range
    low, size = places_m.new_tensor([x_min, y_min]), places_m.new_tensor([x_max - x_min, y_max - y_min])
    return sample_bilinear(maps, ((places_m - low) / size * 2 - 1).to(maps)).permute(0, 2, 3, 1)


def no_agents(like: Tensor) -> Agents:
    """No scenes with no agents, one frame."""
    def empty(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(0, 0, *shape, dtype=dtype, device=like.device)

    return Agents(empty(dtype=torch.bool), empty(1, 2), empty(1, dtype=torch.bool), empty(1, 8), empty(12, 2),
                  empty(12, dtype=torch.bool), empty(1, 7), empty(4, 4), ())
