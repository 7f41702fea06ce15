"""Queries. In: image features of T frames, LiDAR BEV features, or both. Out: boxes (SparseBEV, Liu et al., ICCV 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.frustum import in_metres
from projects.encodings.quirks import parse_quirks
from projects.memfusion.structures import Readout, SceneFeatures

from .denoising import ClassDenoising, NoisyQueries
from .query_head import Decoded, QueryHead
from .sampled_frames import frames_of, time_gaps
from .sparsebev_decoder import SparseBEVDecoder
from .sparsebev_layer import LayerSettings, Surroundings

QUIRKS = ('level_weights', 'first_view', 'unmasked_points', 'align_corners', 'image_bounds', 'repeated_frames', 'camera_stamps',
          'velocity_by_first_gap', 'start_on_the_floor')
_BOX = ('x', 'y', 'z', 'l', 'w', 'h', 'sin', 'cos', 'vx', 'vy')
"""Order of the decoder's boxes."""
_GROUPS_OF_NORM = 8


@dataclass(frozen=True)
class Inputs:
    """What `pts_bbox_head.inputs` says: cameras, LiDAR or both.

    Attributes:
        num_frames: T frames of images, the current one included; 0 without cameras.
        bev_channels: of the LiDAR's BEV map; None without LiDAR.
        read_levels: positions of the image levels that are read; None is all.
    """

    num_frames: int = 8
    bev_channels: int | None = None
    read_levels: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 0 or (self.num_frames == 0 and self.bev_channels is None):
            raise ValueError('the head sees nothing: set num_frames to at least 1 (cameras), bev_channels (LiDAR), or both')


@MODELS.register_module()
class SparseBEVHead(QueryHead):
    """Box queries that choose points in and around themselves and read there what T frames of images, and the LiDAR, show.

    Cameras need the memory dict(type='FrameRing', num_frames=...) for more than one frame; frames that are not there yet show
    nothing. The LiDAR's BEV map counts as one more frame, of now.

    Args:
        num_classes, point_cloud_range, loss_cfg, decode_cfg: as in QueryHead; the boxes' code is 'x y l w z h'.
        num_queries: Q, a square: they start as a grid.
        inputs: see Inputs.
        transformer: see LayerSettings.
        denoising: see ClassDenoising; None is none.
        published_quirks: True for weights of the published code, or names:
            level_weights: flat (frame, group) k reads group k % G, but with the level weights of group k // T.
            first_view: a point that several cameras see is read in the first of them alone; else their mean counts.
            unmasked_points: a point that no camera sees is read in the first one, with 0 around its image.
            align_corners: the maps' outermost cells have their centres on the border of the image.
            image_bounds: an image, padding included, reaches from pixel 0 to its width, and depth counts from 1e-5 m.
            repeated_frames: in place of a frame that is not there the oldest one that is.
            camera_stamps: the time between frames is the mean over the cameras of their images' stamps; else the LiDAR's.
            velocity_by_first_gap: what is regressed is the way since the frame before, not m/s.
            start_on_the_floor: the queries start at the lowest height of the range, with sizes and yaws by lot.

    Raises:
        ValueError: where there is neither camera nor LiDAR, the number of queries is no square, or a quirk is unknown.
    """

    denoising: ClassDenoising | None
    typed_parts = {**QueryHead.typed_parts, 'inputs': Inputs, 'transformer': LayerSettings, 'denoising': ClassDenoising}

    def __init__(self, num_classes: int, point_cloud_range: Sequence[float], num_queries: int = 900,
                 inputs: dict | None = None, transformer: dict | None = None, loss_cfg: dict | None = None,
                 decode_cfg: dict | None = None, denoising: dict | None = None,
                 published_quirks: bool | Sequence[str] = False, init_cfg: dict | None = None) -> None:
        super().__init__(num_classes, point_cloud_range, dict(order='x y l w z h'), loss_cfg, decode_cfg, denoising, init_cfg)
        side = math.isqrt(max(num_queries, 0))
        if not num_queries or side * side != num_queries:
            raise ValueError(f'pts_bbox_head.num_queries must be a square, for the queries start as a grid, got {num_queries}')
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'model.pts_bbox_head')
        seen: Inputs = self.read('inputs', inputs)
        self.num_frames, self.needs_levels = seen.num_frames, seen.num_frames > 0
        self.read_levels, self.bev_channels = seen.read_levels, seen.bev_channels
        self.reads = ('past',) if seen.num_frames > 1 else ()
        settings: LayerSettings = self.read('transformer', transformer)
        lidar = seen.bev_channels is not None
        if lidar and settings.dim % _GROUPS_OF_NORM:
            raise ValueError(f'pts_bbox_head.transformer.dim={settings.dim} must be a multiple of {_GROUPS_OF_NORM} where '
                             'inputs.bev_channels is set: the BEV map is normalised in as many groups')
        self.first_boxes = nn.Parameter(start_boxes(side, 'start_on_the_floor' in self.quirks))
        self.class_features = nn.Embedding(num_classes + 1, settings.dim - 1)  # the last one: not known
        self.bev_projection = None if seen.bev_channels is None else nn.Sequential(
            nn.Conv2d(seen.bev_channels, settings.dim, 1), nn.GroupNorm(_GROUPS_OF_NORM, settings.dim))
        self.decoder = SparseBEVDecoder(settings, num_classes, seen.num_frames, lidar, self.point_cloud_range, self.quirks)

    def decode_queries(self, features: SceneFeatures, readout: Readout, noisy: NoisyQueries | None) -> Decoded:
        """As in QueryHead."""
        features, readout = features.float(), readout.float()
        batch = features.batch_size
        boxes = self.first_boxes.expand(batch, -1, -1)
        unknown = torch.full((1, 1), self.num_classes, device=boxes.device)
        query = self._features(unknown.expand(batch, boxes.shape[1]), 0.0)
        allowed = None
        if noisy is not None and self.denoising is not None:
            allowed = noisy.allowed(boxes.shape[1])
            boxes = torch.cat([self._noisy_boxes(noisy), boxes], dim=1)
            query = torch.cat([self._features(self.denoising.told(noisy.labels, self.num_classes), 1.0), query], dim=1)
        logits, found = self.decoder(boxes, query, self.surroundings(features, readout), allowed)
        return Decoded(logits, self._codes(found))

    def surroundings(self, features: SceneFeatures, readout: Readout) -> Surroundings:
        """What the boxes are compared with.

        Raises:
            ValueError: where images, earlier frames or BEV features are missing, or there are more than asked for.
        """
        bev = None
        if self.bev_projection is not None:
            seen, says = self.bev_of(features, readout)
            bev = self.bev_projection(seen)
            if says is not None:
                bev = bev * says[:, None, None, None].to(bev.dtype)
        if not self.num_frames:
            return Surroundings((), self.first_boxes.new_zeros(features.batch_size, 1), bev)
        frames = frames_of(features, readout, self.num_frames, self.quirks)
        if self.read_levels is not None:
            if missing := [i for i in self.read_levels if not -len(frames[0].levels) <= i < len(frames[0].levels)]:
                raise ValueError(f'pts_bbox_head.inputs.read_levels={list(self.read_levels)} has {missing}, but img_neck gives '
                                 f'{len(frames[0].levels)} levels')
            frames = tuple(replace(frame, levels=tuple(frame.levels[i] for i in self.read_levels)) for frame in frames)
        return Surroundings(frames, time_gaps(frames, self.quirks), bev)

    def _features(self, labels: Tensor, is_noisy: float) -> Tensor:
        """(B, n) classes -> (B, n, E); the last channel says whether the query is one of denoising."""
        return nn.functional.pad(self.class_features(labels), (0, 1), value=is_noisy)

    def _noisy_boxes(self, noisy: NoisyQueries) -> Tensor:
        """(B, P, 10) in the decoder's order; standing still where the velocity is not known."""
        boxes = noisy.boxes
        velocity = torch.where(boxes[..., 7:9] == boxes[..., 7:9], boxes[..., 7:9], 0.0)
        yaw = boxes[..., 6:7]
        return torch.cat([noisy.points, boxes[..., 3:6].log(), yaw.sin(), yaw.cos(), velocity], dim=-1)

    def _codes(self, boxes: Tensor) -> Tensor:
        """(..., 10) of the decoder -> the head's code, centres in metres."""
        boxes = torch.cat([in_metres(boxes[..., :3], self.point_cloud_range), boxes[..., 3:]], dim=-1)
        places = sorted(self.code.columns, key=self.code.columns.__getitem__)
        return torch.stack([boxes[..., _BOX.index(name)] for name in places], dim=-1)


def start_boxes(side: int, on_the_floor: bool = False) -> Tensor:
    """(side * side, 10) boxes in the decoder's order, whose centres cover the range evenly, x outer.

    Args:
        side: how many along x and y.
        on_the_floor: as published: lowest height, e^1.5 m high, other sizes and yaws by lot; else 2.7 m wide and long, 4.5 m
            high, in the middle of the range's height.
    """
    at = (torch.arange(side) + 0.5) / side
    xy = torch.stack(torch.meshgrid(at, at, indexing='ij'), dim=-1).flatten(0, 1)
    if not on_the_floor:
        same = torch.tensor([0.5, 1.0, 1.0, 1.5, 0.0, 1.0, 0.0, 0.0])  # z, sizes, sin, cos, velocity
        return torch.cat([xy, same.expand(len(xy), -1)], dim=1)
    boxes = torch.randn(len(xy), len(_BOX))
    boxes[:, :2] = xy
    boxes[:, [2, 8, 9]] = 0.0
    boxes[:, 5] = 1.5
    return boxes
