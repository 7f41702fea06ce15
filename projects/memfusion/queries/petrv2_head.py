"""Queries, head PETRv2. In: images of this frame and the one before, LiDAR BEV, or both. Out: classes and boxes of queries.

    image features + embedding of where each cell looks (petrv2_embedding) \\
    LiDAR BEV cells + embedding of where each lies (bev_tokens)             > keys
    learned points -> sine -> queries -> decoder: each asks the queries, then all keys -> branches of each layer -> boxes

PETRv2 (Liu et al., ICCV 2023); LiDAR cells join as in CMT (Yan et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.quirks import parse_quirks
from projects.encodings.sine import sine_points
from projects.memfusion.structures import Calibration, PastFrame, Readout, SceneFeatures, TokenPlaces

from .bev_tokens import BEVTokens, BEVTokenSettings
from .branches import classification_branch, regression_branch
from .cross_poses import QueryPoses, key_views
from .decoder import DecoderSettings, Tokens
from .denoising import NoisyQueries
from .image_tokens import flat_tokens, level_at
from .petrv2_branches import ORDER, GroupedBranch
from .petrv2_embedding import EmbeddingSettings, ImageEmbedding
from .query_head import Decoded, QueryHead
from .references import PointReferences, in_metres, refined

QUIRKS = ('corner_cells', 'matrix_pixels', 'counted_views', 'mean_gap', 'group_order', 'old_heading')
_XYZ_OF_SINE = (1, 0, 2)


@dataclass(frozen=True)
class ImageSettings(EmbeddingSettings):
    """What `pts_bbox_head.images` says, beside the settings of the embedding.

    Attributes:
        channels: of the image level that is read.
        level: its position among those of the neck.
        num_frames: how many frames are looked at, this one included; more than one come from
            temporal=dict(type='FrameRing', num_frames=...).
        nominal_gap_s: seconds between frames where there is no earlier one.
        divide_by_gap: whether the branches say how far a box moves between frames, not its velocity.
    """

    channels: int = 256
    level: int = 0
    num_frames: int = 2
    nominal_gap_s: float = 0.5
    divide_by_gap: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_frames < 1 or self.nominal_gap_s <= 0:
            raise ValueError('num_frames must be at least 1 and nominal_gap_s above 0, got '
                             f'{self.num_frames} and {self.nominal_gap_s}')


@MODELS.register_module()
class PETRv2(QueryHead):
    """Queries that attend to all feature cells of two frames at once, which are told apart by where they look.

    Args:
        num_classes, point_cloud_range, loss_cfg, decode_cfg, denoising: as in QueryHead.
        num_queries: Q.
        images: see ImageSettings; None is LiDAR only.
        bev: see BEVTokenSettings; None is cameras only.
        transformer: see DecoderSettings.
        grouped: whether the numbers of a box come from groups of layers, see GroupedBranch, or from one.
        published_quirks: what is followed of the published code: True, as official weights want it, or names of
            corner_cells: a feature cell looks through its upper left corner, not its centre.
            matrix_pixels: pixels are counted from the image's corner, and the matrices taken to count so, half a pixel aside.
            counted_views: the sine's first axis counts the views of all frames, so that it depends on the order and number of
                cameras; else it is the frame.
            mean_gap: the time between frames, which velocities are divided by, is that of the mean stamps of the cameras, not
                that of the LiDAR's.
            group_order: the groups' numbers go into the code as listed: the one called height is the width.
            old_heading: headings are those of mmdet3d before 1.0, clockwise from -y.

    Raises:
        ValueError: for settings that do not exist or do not go together.

    The published pad shape of sample 0 needs no switch: the images of a batch are padded alike here.
    """

    typed_parts = {**QueryHead.typed_parts, 'images': ImageSettings, 'bev': BEVTokenSettings, 'transformer': DecoderSettings}

    def __init__(self, num_classes: int, point_cloud_range: Sequence[float], num_queries: int = 900,
                 images: dict | None = None, bev: dict | None = None, transformer: dict | None = None, grouped: bool = True,
                 loss_cfg: dict | None = None, decode_cfg: dict | None = None, denoising: dict | None = None,
                 published_quirks: bool | Sequence[str] = False, init_cfg: dict | None = None) -> None:
        quirks = parse_quirks(published_quirks, QUIRKS, 'model.pts_bbox_head')
        code = dict(order=ORDER, heading='mmdet3d-0.x' if 'old_heading' in quirks else 'ccw')
        super().__init__(num_classes, point_cloud_range, code, loss_cfg, decode_cfg, denoising, init_cfg)
        if images is None and bev is None:
            raise ValueError('pts_bbox_head=PETRv2 has nothing to look at: set images=dict(channels=...), bev=dict('
                             'in_channels=...) or both')
        said: DecoderSettings = self.read('transformer', transformer)
        dim, layers = said.dim, said.num_layers
        self.mean_gap, self.sine_features = 'mean_gap' in quirks, dim // 2
        self.images: ImageSettings | None = None if images is None else self.read('images', images)
        self.reads = () if self.images is None or self.images.num_frames == 1 else ('past',)
        if self.images is not None:
            self.needs_levels, self.read_levels = True, (self.images.level,)
            self.input_proj = nn.Linear(self.images.channels, dim)
            self.embedding = ImageEmbedding(dim, self.images, quirks)
        of_bev: BEVTokenSettings | None = None if bev is None else self.read('bev', bev)
        self.bev_tokens = None if of_bev is None else BEVTokens(of_bev, dim, self.point_cloud_range)
        self.bev_channels = None if of_bev is None else of_bev.in_channels
        self.references = PointReferences(num_queries)
        self.query_embedding = nn.Sequential(nn.Linear(dim // 2 * 3, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.decoder = said.build()
        self.cls_branches = nn.ModuleList(classification_branch(dim, num_classes) for _ in range(layers))
        self.reg_branches = nn.ModuleList(
            GroupedBranch(dim, 'group_order' in quirks) if grouped else regression_branch(dim, 10) for _ in range(layers))

    def decode_queries(self, features: SceneFeatures, readout: Readout, noisy: NoisyQueries | None) -> Decoded:
        """As QueryHead.decode_queries."""
        past = self._past(readout)
        parts = [] if self.images is None else [self.image_tokens(features, past)]
        if self.bev_tokens is not None:
            parts.append(self.bev_tokens(*self.bev_of(features, readout)))
        tokens = Tokens.join(parts)
        points, allowed = self.references(features.batch_size), None
        if noisy is not None:
            allowed = noisy.allowed(points.shape[1])
            points = torch.cat([noisy.points, points], dim=1)
        asking = self.query_positions(points)
        gap_s = self.gap_s(features, past)
        queries = self.decoder(torch.zeros_like(asking), asking, tokens, allowed,
                               poses=lambda: self.poses(tokens, features, past, points, gap_s))
        logits = torch.stack([branch(layer) for branch, layer in zip(self.cls_branches, queries)])
        raw = torch.stack([branch(layer) for branch, layer in zip(self.reg_branches, queries)])
        return Decoded(logits, self.codes(raw, points, gap_s))

    def poses(self, tokens: Tokens, features: SceneFeatures, past: Sequence[PastFrame], points: Tensor,
              gap_s: Tensor | None) -> QueryPoses:
        """Of queries that begin at points (B, Q, 3), 0..1, and of the tokens; arguments as made in decode_queries."""
        rigs = [rig for rig in (features.calibration, *(frame.calibration for frame in past)) if rig is not None]
        ages_s = [points.new_zeros(len(points)), *(frame.age_s.float() for frame in past)]
        keys = key_views(tokens.places, rigs, ages_s, self.point_cloud_range, points)
        return QueryPoses(keys, in_metres(points, self.point_cloud_range), lambda layer, queries: self.code.poses(
            self.codes(self.reg_branches[layer](queries), points, gap_s)))

    def query_positions(self, points: Tensor) -> Tensor:
        """(B, Q, 3) in 0..1 -> (B, Q, E)."""
        return self.query_embedding(sine_points(points, self.sine_features, _XYZ_OF_SINE))

    def image_tokens(self, features: SceneFeatures, past: Sequence[PastFrame]) -> Tokens:
        """The cells of all frames' cameras, newest first."""
        levels, rigs = self._frames(features, past)
        rows, columns = levels[0].shape[-2:]
        cells = [self.input_proj(flat_tokens(level)).unflatten(1, (level.shape[1], rows * columns)) for level in levels]
        positions, shown = self.embedding(cells, rigs, (rows, columns))
        parts = [Tokens((cell + position).flatten(1, 2), cell.flatten(1, 2), None if there is None else there.flatten(1),
                        (TokenPlaces((cell.shape[1], rows, columns), age),))
                 for age, (cell, position, there) in enumerate(zip(cells, positions, shown))]
        return Tokens.join(parts)

    def gap_s(self, features: SceneFeatures, past: Sequence[PastFrame]) -> Tensor | None:
        """(B,) float32 seconds between this frame and the one before; None where the branches say velocities."""
        if not past or self.images is None or not self.images.divide_by_gap:
            return None
        age_s = past[0].age_s
        gap_s = age_s
        if self.mean_gap and features.calibration is not None:
            now, then = (_mean_stamp(rig) for rig in (features.calibration, past[0].calibration))
            gap_s = torch.where((now - then).isfinite(), now - then, age_s)
        return torch.where((gap_s > 0) & (age_s > 0), gap_s, self.images.nominal_gap_s).float()

    def codes(self, raw: Tensor, points: Tensor, gap_s: Tensor | None) -> Tensor:
        """What the branches say (..., B, Q, 10) -> the same as codes."""
        raw = raw.float()
        x, y, z = self.code.centre_columns
        centres = refined(torch.cat([raw[..., x:y + 1], raw[..., z:z + 1]], dim=-1), points)
        centres = in_metres(centres, self.point_cloud_range)
        velocity = raw[..., 8:] if gap_s is None else raw[..., 8:] / gap_s[:, None, None]
        return torch.cat([centres[..., :2], raw[..., 2:z], centres[..., 2:], raw[..., z + 1:8], velocity], dim=-1)

    def _past(self, readout: Readout) -> tuple[PastFrame, ...]:
        """The earlier frames that the head looks at, newest first."""
        wanted = 0 if self.images is None else self.images.num_frames - 1
        if not wanted:
            return ()
        if readout.past is None or len(readout.past) != wanted:
            has = 'none' if readout.past is None else len(readout.past)
            raise ValueError(f'pts_bbox_head.images.num_frames={wanted + 1} looks at {wanted} earlier frame(s), but there is '
                             f'{has}: set model.temporal=dict(type=FrameRing, num_frames={wanted + 1}), or num_frames=1')
        return readout.past.frames()

    def _frames(self, features: SceneFeatures, past: Sequence[PastFrame]) -> tuple[list[Tensor], list[Calibration]]:
        """Level and rig of each frame, newest first."""
        if features.levels is None or features.calibration is None:
            raise ValueError('pts_bbox_head=PETRv2 with images reads image features, but the frames have none: set '
                             'model.img_backbone, or images=None')
        assert self.images is not None
        level, channels = self.images.level, self.images.channels
        levels = [level_at(features.levels, level, channels, 'pts_bbox_head.images'), *(frame.levels[level] for frame in past)]
        if any(other.shape[2:] != levels[0].shape[2:] for other in levels):
            raise ValueError(f'pts_bbox_head.images.level={level}, but earlier frames have that level as '
                             f'{tuple(levels[-1].shape[2:])} (channels, rows, columns) and this one as '
                             f'{tuple(levels[0].shape[2:])}: model.temporal.levels must name it, or be None')
        return levels, [features.calibration, *(frame.calibration for frame in past)]


def _mean_stamp(rig: Calibration) -> Tensor:
    """(B,) seconds, over the cameras that are there; NaN without one."""
    there = rig.cam_valid.double()
    return torch.where(rig.cam_valid, rig.t_cam, 0.0).sum(1) / there.sum(1)
