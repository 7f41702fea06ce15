"""Queries. In: one image level, BEV features, or both. Out: boxes of queries that attend to the tokens of both (CMT).

One decoder reads LiDAR BEV tokens and image tokens alike (CMT: Cross Modal Transformer, Yan et al., ICCV 2023). Where a token
lies is told by embeddings that queries share: the sine of the ground position, and the points along a viewing ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.quirks import parse_quirks
from projects.encodings.rig_cache import RigCache
from projects.memfusion.structures import Calibration, Readout, SceneFeatures, TokenPlaces

from .bev_embedding import BEVEmbedding
from .cross_poses import QueryPoses, key_views
from .decoder import DecoderSettings, Tokens
from .denoising import NoisyQueries
from .image_tokens import flat_tokens, shown_cells
from .layerwise_heads import LayerwiseHeads
from .masked_modal import MaskedModal
from .query_head import QueryHead
from .query_outputs import Decoded
from .ray_embedding import RayEmbedding
from .references import PointReferences, in_metres, refined

QUIRKS = ('box_order', 'corner_cells', 'matrix_pixels', 'padded_view', 'padding_tokens', 'summed_rays')
BRANCHES = dict(center=2, height=1, dim=3, rot=2, vel=2)
"""In the order in which their numbers are read as a box's code."""


@dataclass(frozen=True)
class TokenInputs:
    """What becomes tokens.

    Attributes:
        img_channels: of the image level; None for LiDAR only. Where it is not `dim`, a linear layer comes first.
        bev_channels: of the BEV features; None for cameras only.
        level: position of the image level among those of the neck.
        bev_stride: of the 3 x 3 convolution before the BEV tokens.
        num_depths: points along each viewing ray.
        ladder: of the BEV sine, 'power' or 'linear' (as published), see bev_sine.
    """

    img_channels: int | None = None
    bev_channels: int | None = None
    level: int = 0
    bev_stride: int = 1
    num_depths: int = 64
    ladder: str = 'power'

    def __post_init__(self) -> None:
        if self.img_channels is None and self.bev_channels is None:
            raise ValueError('set img_channels, bev_channels or both; without them a CMTHead sees nothing')


@dataclass(frozen=True)
class Transformer(DecoderSettings):
    """Those of the decoder, how many queries are learned, and hidden channels of the branches."""

    ffn_dim: int = 1024
    num_queries: int = 900
    branch_dim: int = 64


@dataclass(frozen=True)
class Shown:
    """Which of B frames show a sensor, (B,) bool; None is all of them."""

    cameras: Tensor | None = None
    lidar: Tensor | None = None


ALL_SHOWN = Shown()


@MODELS.register_module()
class CMTHead(QueryHead):
    """CMT (Yan et al., ICCV 2023): with cameras, LiDAR, or both, by `inputs`. Parameters have the published names.

    Args:
        num_classes: K.
        point_cloud_range: filled from model.grid.
        inputs: settings of TokenInputs.
        transformer: settings of Transformer.
        masked_modal: settings of MaskedModal, for a head with both sensors; None hides none in training.
        published_quirks: True for official checkpoints, False, or names of what the published code does differently:
            box_order: the ten numbers are read as x, y, log l, log w, z, log h, ..., so the branch `height` gives log l,
                squashed into the range of z.
            corner_cells: a feature cell stands at its upper left corner instead of its centre.
            matrix_pixels: pixel 0 is the border of the image instead of the centre of its first pixel.
            padded_view: a query is seen wherever a padded image has a pixel for it, however near.
            padding_tokens: what lies in the padding of an image is attended to.
            summed_rays: a query's rays are summed over the cameras that see it instead of averaged.
            `inputs.ladder='linear'` belongs to them.
        loss_cfg, decode_cfg, denoising: see QueryHead.

    Raises:
        ValueError: for settings that do not fit together.
    """

    typed_parts = {**QueryHead.typed_parts, 'inputs': TokenInputs, 'transformer': Transformer, 'masked_modal': MaskedModal}

    def __init__(self, num_classes: int, point_cloud_range: Sequence[float], inputs: dict, transformer: dict | None = None,
                 masked_modal: dict | None = None, published_quirks: bool | Sequence[str] = False,
                 loss_cfg: dict | None = None, decode_cfg: dict | None = None, denoising: dict | None = None) -> None:
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'model.pts_bbox_head')
        order = 'x y l w z h' if 'box_order' in self.quirks else 'x y z l w h'
        super().__init__(num_classes, point_cloud_range, box_code=dict(order=order), loss_cfg=loss_cfg, decode_cfg=decode_cfg,
                         denoising=denoising)
        self.inputs: TokenInputs = self.read('inputs', inputs)
        settings: Transformer = self.read('transformer', transformer)
        self.needs_levels = self.inputs.img_channels is not None
        self.read_levels = (self.inputs.level,)
        self.bev_channels, self.reads = self.inputs.bev_channels, ()
        self.masked_modal: MaskedModal | None = None if masked_modal is None else self.read('masked_modal', masked_modal)
        if self.masked_modal is not None and not (self.needs_levels and self.bev_channels):
            raise ValueError('model.pts_bbox_head.masked_modal hides one of two sensors, but inputs has only '
                             f'{"img_channels" if self.needs_levels else "bev_channels"}: leave it out')
        dim = settings.dim
        self.reference_points = PointReferences(settings.num_queries)
        self.bev_embedding = BEVEmbedding(dim, self.inputs.ladder)
        if self.inputs.bev_channels is not None:
            self.shared_conv = ConvModule(self.inputs.bev_channels, dim, 3, stride=self.inputs.bev_stride, padding=1,
                                          norm_cfg=dict(type='BN'))
        if self.inputs.img_channels is not None:
            self.img_proj = nn.Identity() if self.inputs.img_channels == dim else nn.Linear(self.inputs.img_channels, dim)
            self.rv_embedding = RayEmbedding(dim, self.inputs.num_depths, self.point_cloud_range,
                                             'summed_rays' in self.quirks, 'padded_view' in self.quirks)
        self.decoder = settings.build()
        self.task_heads = LayerwiseHeads(dim, settings.num_layers, {**BRANCHES, 'cls_logits': num_classes},
                                         settings.branch_dim, dict(cls_logits=-4.595))
        self._ray_cache = RigCache()

    def decode_queries(self, features: SceneFeatures, readout: Readout, noisy: NoisyQueries | None) -> Decoded:
        """Noisy queries first, then the learned ones; in eval mode without gradients the last layer alone is read."""
        rig, shown = self.pixel_rig(features), self._shown(features, readout)
        references = self.reference_points(features.batch_size)
        if noisy is not None:
            references = torch.cat([noisy.points, references], dim=1)
        positions = self.query_positions(references, rig, shown)
        allowed = None if noisy is None else noisy.allowed(self.reference_points.weight.shape[0])
        tokens = self.tokens(features, readout, rig, shown)
        decoded = self.decoder(torch.zeros_like(positions), positions, tokens, allowed,
                               poses=lambda: self._poses(tokens, rig, references))
        last = None if torch.is_grad_enabled() else [self.task_heads.num_layers - 1]
        numbers = self.task_heads(decoded if last is None else decoded[last], last)
        return Decoded(numbers['cls_logits'], self._codes(numbers, references))

    def _codes(self, numbers: Mapping[str, Tensor], references: Tensor) -> Tensor:
        offsets = torch.cat([numbers['center'], numbers['height']], dim=-1)
        centres_m = in_metres(refined(offsets, references), self.point_cloud_range)
        return torch.cat([centres_m, numbers['dim'], numbers['rot'], numbers['vel']], dim=-1)

    def _poses(self, tokens: Tokens, rig: Calibration | None, references: Tensor) -> QueryPoses:
        keys = key_views(tokens.places, [] if rig is None else [rig], [references.new_zeros(len(references))],
                         self.point_cloud_range, references)
        return QueryPoses(keys, in_metres(references, self.point_cloud_range), lambda layer, queries: self.code.poses(
            self._codes(self.task_heads(queries[None], [layer]), references)[0]))

    def query_positions(self, references: Tensor, rig: Calibration | None, shown: Shown = ALL_SHOWN) -> Tensor:
        """(B, Q, 3) in parts of the range -> (B, Q, E)."""
        positions = self.bev_embedding(references[..., :2])
        if rig is None:
            return positions
        return positions + self.rv_embedding.of_points(in_metres(references, self.point_cloud_range), rig, shown.cameras)

    def tokens(self, features: SceneFeatures, readout: Readout, rig: Calibration | None, shown: Shown = ALL_SHOWN) -> Tokens:
        """BEV cells row by row, then camera by camera the cells of the image level."""
        parts = []
        if self.inputs.bev_channels is not None:
            bev = self.shared_conv(self.bev_of(features, readout)[0])
            values = flat_tokens(bev[:, None])
            keep = None if shown.lidar is None else shown.lidar[:, None].expand(values.shape[:2])
            parts.append(Tokens(values + self.bev_embedding.of_cells(bev.shape[2:]), values, keep,
                                (TokenPlaces((bev.shape[2], bev.shape[3])),)))
        if rig is not None:
            level = self._level(features)
            values = self.img_proj(flat_tokens(level))
            keys = values + self.cell_positions(rig, level.shape[-2:])
            places = TokenPlaces((level.shape[1], *level.shape[3:]))
            parts.append(Tokens(keys, values, self._seen_cells(rig, level.shape[-2:], shown), (places,)))
        return Tokens.join(parts)

    def cell_positions(self, rig: Calibration, shape: Sequence[int]) -> Tensor:
        """(B, N * h * w, E) of the cells of a level (h, w), camera-major; once for a rig that does not change."""
        return self._ray_cache.get(
            rig.views(), lambda: self.rv_embedding(*rig.rays(shape, self._offset)).flatten(1, 3), self.rv_embedding,
            key=tuple(shape))

    def forget_rig(self) -> None:
        """Forgets the embeddings of the rig that was seen last, and of the BEV's cells."""
        self._ray_cache.clear()
        self.bev_embedding.forget()

    def _seen_cells(self, rig: Calibration, shape: Sequence[int], shown: Shown) -> Tensor | None:
        """(B, N * h * w) bool, which image tokens count; None is all."""
        if 'padding_tokens' in self.quirks:
            keep = None if all(rig.cameras_there) else rig.cam_valid[..., None, None].expand(*rig.cam_valid.shape, *shape)
        else:
            keep = shown_cells(rig, shape, self._offset)
        keep = None if keep is None else keep.flatten(1)
        if shown.cameras is None:
            return keep
        of_frames = shown.cameras[:, None]
        return keep & of_frames if keep is not None else of_frames.expand(-1, rig.cam_valid.shape[1] * shape[0] * shape[1])

    @property
    def _offset(self) -> float:
        return 0.0 if 'corner_cells' in self.quirks else 0.5

    def pixel_rig(self, features: SceneFeatures) -> Calibration | None:
        """The cameras as this head counts pixels; None for a head without them."""
        if not self.needs_levels:
            return None
        rig = features.calibration
        if rig is None:
            raise ValueError('model.pts_bbox_head.inputs.img_channels is set, but the frames have no images: set '
                             'model.img_backbone, or leave img_channels out')
        if 'matrix_pixels' in self.quirks:
            return rig.with_shift(rig.bev_aug.new_full((*rig.cam_valid.shape, 2), -0.5))
        return rig

    def _level(self, features: SceneFeatures) -> Tensor:
        levels, wanted = features.levels or (), self.inputs.level
        if not -len(levels) <= wanted < len(levels):
            raise ValueError(f'model.pts_bbox_head.inputs.level={wanted}, but img_neck gives {len(levels)} levels')
        if levels[wanted].shape[2] != self.inputs.img_channels:
            raise ValueError(f'model.pts_bbox_head.inputs.img_channels={self.inputs.img_channels}, but level {wanted} has '
                             f'{levels[wanted].shape[2]} channels')
        return levels[wanted]

    def _shown(self, features: SceneFeatures, readout: Readout) -> Shown:
        """A frame whose BEV says nothing has no LiDAR; what training hides is not there either."""
        if self.inputs.bev_channels is None:
            return ALL_SHOWN
        _, lidar = self.bev_of(features, readout)
        if not self.training or self.masked_modal is None or features.calibration is None:
            return Shown(lidar=lidar)
        has_cameras = features.calibration.cam_valid.any(1)
        return Shown(*self.masked_modal.draw(has_cameras, torch.ones_like(has_cameras) if lidar is None else lidar))
