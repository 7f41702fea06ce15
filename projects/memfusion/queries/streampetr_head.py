"""Queries, StreamPETR. In: tokens of images and BEV, queries of earlier frames. Out: boxes, and queries for later frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.encodings.frustum import in_metres, normalised
from projects.encodings.quirks import parse_quirks
from projects.encodings.sine import sine_axis, sine_points
from projects.geometry.precision import full_precision
from projects.memfusion.structures import QueryProposals, Readout, SceneFeatures

from . import cone_tokens, remembered
from .bev_tokens import BEVTokens, BEVTokenSettings
from .branches import classification_branch, regression_branch
from .conditioned_norm import ConditionedNorm
from .cone_tokens import ConeSettings, ConeTokens
from .cross_poses import QueryPoses, key_views
from .decoder import DecoderSettings, Tokens
from .denoising import NoisyQueries
from .heatmap_proposals import HeatmapProposals, ProposalSettings, Proposed
from .image_tokens import level_at
from .query_head import QueryHead, beyond
from .query_outputs import Decoded, QueryOutputs
from .references import PointReferences, refined
from .remembered import NUM_CONDITIONS, RememberedQueries, conditions

QUIRKS = (*remembered.QUIRKS, *cone_tokens.QUIRKS)
_YXZ = (1, 0, 2)


@dataclass(frozen=True)
class QueryCounts:
    """How many queries are learned, how many of the memory's newest go through the decoder again, and how many are proposed
    from the BEV, which the published head does not do."""

    num_learned: int = 644
    num_propagated: int = 256
    num_proposed: int = 0

    def __post_init__(self) -> None:
        if self.num_learned < 1 or min(self.num_propagated, self.num_proposed) < 0:
            raise ValueError('num_learned must be at least 1, num_propagated and num_proposed not negative, got '
                             f'{self.num_learned}, {self.num_propagated} and {self.num_proposed}')


@MODELS.register_module()
class StreamPETR(QueryHead):
    """StreamPETR's head (Wang et al., ICCV 2023): learned queries and the newest of the memory attend to images, to LiDAR's
    BEV, or to both; they hear of what else the memory holds in self-attention.

    Needs temporal=dict(type='QueryMemory') where queries.num_propagated is not 0. One classification and one regression branch
    serve all layers. Codes are x, y, z, log l, log w, log h, sin, cos, vx, vy.

    Args:
        num_classes, point_cloud_range, loss_cfg, decode_cfg, denoising: as in QueryHead.
        queries: see QueryCounts.
        transformer: see DecoderSettings.
        image_tokens: see ConeSettings; position_range is made from point_cloud_range. None reads no images.
        bev_tokens: see BEVTokenSettings. None reads no BEV.
        proposals: see ProposalSettings; of queries.num_proposed queries, which stand between the learned and the remembered.
        published_quirks: True for official weights, or names:
            'empty_slots': slots of the memory that nothing is stored in are attended to, as zeros seen through a zero pose;
                else nobody reads them, and as queries they find nothing.
            'pseudo_points': a scene begins with fixed points in the propagated slots.
            'still_points': what is remembered stays where it was found; else it moves on with its velocity.
            'unrotated_velocity': the norm is told velocities in the frames of then.
            'tiled_focal': token t, camera-major, is told the focal lengths of camera t mod N.
            'half_pixel': matrices count pixels from the image's corner; else integers are at centres.
            'cone_depth': the cone's second point is 30 depths before the end; else in the middle.
            'float32_inverse': camera matrices are inverted in single precision.
            'unmasked_padding': padding of the images is attended to.
    """

    typed_parts = {**QueryHead.typed_parts, 'queries': QueryCounts, 'transformer': DecoderSettings,
                   'image_tokens': ConeSettings, 'bev_tokens': BEVTokenSettings,
                   'proposals': ProposalSettings}

    def __init__(
        self,
        num_classes: int,
        point_cloud_range: Sequence[float],
        queries: dict | None = None,
        transformer: dict | None = None,
        image_tokens: dict | None = None,
        bev_tokens: dict | None = None,
        proposals: dict | None = None,
        loss_cfg: dict | None = None,
        decode_cfg: dict | None = None,
        denoising: dict | None = None,
        published_quirks: bool | Sequence[str] = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(num_classes, point_cloud_range, None, loss_cfg, decode_cfg, denoising, init_cfg)
        counts: QueryCounts = self.read('queries', queries)
        self.num_query, self.num_propagated = counts.num_learned, counts.num_propagated
        self.reads = ('queries',) if self.num_propagated else ()
        self.quirks = parse_quirks(published_quirks, QUIRKS, 'model.pts_bbox_head')
        said: DecoderSettings = self.read('transformer', transformer)
        dim = self.dim = said.dim
        self.image_tokens = self.bev_tokens = None
        if image_tokens is not None:
            settings: ConeSettings = self.read('image_tokens', image_tokens, position_range=beyond(self.point_cloud_range))
            self.image_tokens = ConeTokens(dim, settings, self.quirks)
            self.needs_levels, self.read_levels = True, [settings.level]
        if bev_tokens is not None:
            of_bev: BEVTokenSettings = self.read('bev_tokens', bev_tokens)
            self.bev_tokens = BEVTokens(of_bev, dim, self.point_cloud_range)
            self.bev_channels = of_bev.in_channels
        if image_tokens is None and bev_tokens is None:
            raise ValueError('pts_bbox_head: the queries have nothing to attend to: set image_tokens, bev_tokens or both')
        self.num_proposed = counts.num_proposed
        self.proposals = self._proposals(proposals)
        self.references = PointReferences(self.num_query)
        self.register_buffer('start_points', torch.rand(self.num_propagated, 3))
        self.position = nn.Sequential(nn.Linear(dim // 2 * 3, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.position_norm, self.content_norm = ConditionedNorm(NUM_CONDITIONS, dim), ConditionedNorm(NUM_CONDITIONS, dim)
        self.decoder = said.build()
        self.classify, self.regress = classification_branch(dim, num_classes), regression_branch(dim, 10)

    start_points: Tensor

    def _proposals(self, given: dict | None) -> HeatmapProposals | None:
        settings: ProposalSettings = self.read('proposals', given)
        if not self.num_proposed:
            if given is not None:
                raise ValueError('pts_bbox_head.proposals is set, but queries.num_proposed is 0: set both or neither')
            return None
        if self.bev_channels is None:
            raise ValueError(f"pts_bbox_head.queries.num_proposed={self.num_proposed} are found in LiDAR's BEV: set "
                             'bev_tokens, or num_proposed=0')
        return HeatmapProposals(settings, self.num_proposed, self.bev_channels, self.num_classes, self.dim,
                                self.point_cloud_range)

    def decode_queries(self, features: SceneFeatures, readout: Readout, noisy: NoisyQueries | None) -> Decoded:
        """As QueryHead.decode_queries."""
        tokens = Tokens.join(self.tokens(features, readout))
        references = self.references(features.batch_size)
        if noisy is not None:
            references = torch.cat([noisy.points, references], dim=1)
        proposed = None if self.proposals is None else self.proposals(*self.bev_of(features, readout))
        if proposed is not None:
            references = torch.cat([references, proposed.references], dim=1)
        content, positions = self.learned(references, None if proposed is None else proposed.content)
        here = [(self.num_query, None), (self.num_proposed, None if proposed is None else proposed.there)]
        memory = there = start_m = None
        if self.num_propagated:
            start_m = in_metres(self.start_points, self.point_cloud_range)
            kept = self._remembered(readout, start_m)
            old_content, old_positions = self.encode(kept)
            first = self.num_propagated
            content = torch.cat([content, old_content[:, :first]], dim=1)
            positions = torch.cat([positions, old_positions[:, :first]], dim=1)
            old = normalised(kept.references_m, self.point_cloud_range)
            references = torch.cat([references, old[:, :first]], dim=1)
            rest = old_content[:, first:]
            memory, there = Tokens(rest + old_positions[:, first:], rest), kept.there
        num_memory = 0 if memory is None else memory.keys.shape[1]
        allowed = self._allowed(noisy, side_by_side([*here, (self.num_propagated + num_memory, there)]), num_memory)
        decoded = self.decoder(content, positions, tokens, allowed, memory,
                               poses=lambda: self._poses(tokens, features, references))
        logits, codes = self.found(decoded, references)
        there = side_by_side([*here, (self.num_propagated, None if there is None else there[:, :self.num_propagated])])
        offered = self._offered(decoded, logits, codes, there, start_m if 'pseudo_points' in self.quirks else None)
        return Decoded(logits, codes, there, offered, proposed)

    def loss_by_feat(self, outputs: QueryOutputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """As QueryHead.loss_by_feat, and loss_heatmap of the proposals."""
        losses = super().loss_by_feat(outputs, samples)
        if self.proposals is not None:
            assert isinstance(outputs.proposed, Proposed)
            losses['loss_heatmap'] = self.proposals.loss(outputs.proposed, [sample.gt_instances_3d for sample in samples])
        return losses

    def _poses(self, tokens: Tokens, features: SceneFeatures, references: Tensor) -> QueryPoses:
        rig = features.calibration
        keys = key_views(tokens.places, [] if rig is None else [rig], [references.new_zeros(len(references))],
                         self.point_cloud_range, references)
        return QueryPoses(keys, in_metres(references, self.point_cloud_range), lambda layer, queries: self.code.poses(
            self._codes(self.regress(queries), references)))

    # -- what the queries attend to -----------------------------------------------------------------------------------
    def tokens(self, features: SceneFeatures, readout: Readout) -> list[Tokens]:
        """Those of the images, then those of the BEV."""
        found = []
        if self.image_tokens is not None:
            if features.levels is None or features.calibration is None:
                raise ValueError('pts_bbox_head.image_tokens is set, but the frames have no images: set model.img_backbone')
            said = self.image_tokens.settings
            level = level_at(features.levels, said.level, said.in_channels, 'pts_bbox_head.image_tokens')
            found.append(self.image_tokens(level, features.calibration))
        if self.bev_tokens is not None:
            found.append(self.bev_tokens(*self.bev_of(features, readout)))
        return found

    # -- queries ------------------------------------------------------------------------------------------------------
    def learned(self, references: Tensor, proposed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """References (B, Q, 3) in 0..1 of queries that belong to now -> content and positions, (B, Q, E).

        The last of them may be proposed ones, (B, P, E); the others have no content of their own.
        """
        zero = references.new_zeros(1, 1, 2).float()
        still = conditions(zero, zero[..., 0], torch.eye(4, device=zero.device)[None, None])
        places = self.position(sine_points(references.float(), self.dim // 2, _YXZ))
        positions = self.position_norm.shift(still).of(places) + self._time(zero[..., 0])
        shift = self.content_norm.shift(still)
        content = shift.of(torch.zeros_like(places[:1, :1]))
        if proposed is None:
            return content.expand_as(positions), positions
        others = content.expand_as(positions[:, proposed.shape[1]:])
        return torch.cat([others, shift.of(proposed).to(others.dtype)], dim=1), positions

    def encode(self, kept: RememberedQueries) -> tuple[Tensor, Tensor]:
        """Remembered queries -> content and positions, (B, M, E)."""
        seen = kept.conditions()
        references = normalised(kept.references_m, self.point_cloud_range)
        places = self.position(sine_points(references, self.dim // 2, _YXZ))
        times = self._time(kept.age_s[:, ::kept.run])
        positions = self.position_norm(places, seen).unflatten(1, (-1, kept.run)) + times[:, :, None]
        positions = positions.flatten(1, 2)
        return self.content_norm(kept.embeddings, seen), positions

    def _time(self, age_s: Tensor) -> Tensor:
        return self.time_embedding(sine_axis(age_s, self.dim))

    def _remembered(self, readout: Readout, start_m: Tensor) -> RememberedQueries:
        held = readout.queries.get('embeddings')
        if held is None:
            raise ValueError(f'pts_bbox_head.queries.num_propagated={self.num_propagated} come from a memory, but there is '
                             "none: set model.temporal=dict(type='QueryMemory', ...), or num_propagated=0")
        if held.shape[1] < self.num_propagated or held.shape[2] != self.dim:
            raise ValueError(f'pts_bbox_head wants {self.num_propagated} remembered queries of width {self.dim}, but '
                             f'model.temporal holds {held.shape[1]} of width {held.shape[2]}: set temporal.num_slots and '
                             'temporal.embed_dims alike')
        return RememberedQueries.of(readout.queries, start_m, self.quirks)

    def _allowed(self, noisy: NoisyQueries | None, there: Tensor | None, num_memory: int) -> Tensor | None:
        """(B, Q' or 1, Q' + M) bool, who may read whom; None is everyone everyone. `there` is (B, Q + M)."""
        allowed = None
        if noisy is not None:
            allowed = noisy.allowed(self._own, num_memory)
        if there is not None:
            kept = torch.nn.functional.pad(there, (0 if noisy is None else noisy.num, 0), value=True)[:, None]
            allowed = kept if allowed is None else allowed & kept
        return allowed

    @property
    def _own(self) -> int:
        """Q."""
        return self.num_query + self.num_proposed + self.num_propagated

    # -- what they find -----------------------------------------------------------------------------------------------
    @full_precision
    def _codes(self, numbers: Tensor, references: Tensor) -> Tensor:
        centres = in_metres(refined(numbers[..., :3], references), self.point_cloud_range)
        return torch.cat([centres, numbers[..., 3:].float()], dim=-1)

    def found(self, decoded: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """(L, B, Q, E) and references (B, Q, 3) -> logits (L, B, Q, K), codes (L, B, Q, 10)."""
        return self.classify(decoded), self._codes(self.regress(decoded), references)

    def _offered(self, decoded: Tensor, logits: Tensor, codes: Tensor, there: Tensor | None,
                 start_m: Tensor | None) -> QueryProposals:
        own = self._own
        scores = logits[-1, :, -own:].detach().float().amax(-1).sigmoid()
        if there is not None:
            scores = scores.where(there, -1.0)
        last = codes[-1, :, -own:].detach()
        return QueryProposals(decoded[-1, :, -own:].detach().float(), last[..., :3], last[..., 8:10], scores, self.num_query,
                              start_m)


def side_by_side(parts: Sequence[tuple[int, Tensor | None]]) -> Tensor | None:
    """(B, n) bool of so many queries each, None of which is all of them -> those of all parts; None is all."""
    known = [there for _, there in parts if there is not None]
    if not known:
        return None
    return torch.cat([known[0].new_ones(len(known[0]), count) if there is None else there for count, there in parts], dim=1)


