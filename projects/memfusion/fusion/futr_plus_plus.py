"""FuTr++. In: BEV, image features and the rig. Out: BEV with what the cameras saw where it matters; augmented LiDAR frame.

    calib_refine   optional: corrects the rig, weighs the cameras
    tokens         a coarse grid of features per camera
    geometry       tells the tokens where they look; optional: they attend to each other
    film           the cameras modulate the BEV
    select         a few cells ask for more
    sample         these read the cameras; what they read is scattered back
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.common.settings import build_part
from projects.memfusion.structures import Calibration

from .calib_refine import CalibRefine
from .cell_attention import CellFiLM, CellSelfAttention
from .cell_selection import CellSelection
from .cell_update import CellUpdate
from .film import FiLM
from .fusion_layer import FusionLayer, FusionOutput, FusionTruth
from .fusion_state import FusionState, check_kind
from .pillar_sampling import PillarSampling
from .token_attention import CameraAttention, TokenAttention
from .token_geometry import TokenGeometry
from .token_grid import TokenGrid
from .token_poses import token_views

SAMPLE_KINDS = ('off', 'tokens', 'deformable')


@MODELS.register_module()
class FuTrPlusPlus(FusionLayer):
    """Calibration-aware fusion in five stages, each switched by its `kind`. It starts as the identity, and is the identity
    wherever no valid camera has a say.

    Args:
        bev_channels, img_channels, point_cloud_range, strides, levels: as in FusionLayer.
        tokens: dict(grid=1 | 8 | 16 | (rows, columns), dim=D of all tokens and queries, level=which of the used levels,
            self_attn=dict(num_heads=8, encoding=None)). They serve film and the reader 'tokens', and are not built where
            neither is on; with self_attn those of all cameras attend to each other, see CameraAttention.
        geometry: dict(kind, ...), see TokenGeometry. It belongs to the tokens.
        film: dict(kind, ...), see FiLM.
        select: dict(kind, ...), see CellSelection. It serves the stage sample, and is not built where that is off.
        sample: dict(kind='off' | 'tokens' | 'deformable', ...), see TokenAttention and PillarSampling; self_attn=True lets the
            active cells attend to each other before they read, film_back=True tells all cells what these found. Camera poses in
            the attentions: encoding=dict(type='PRoPE', ...) of the reader 'tokens', self_attn=dict(encoding=...).
        calib_refine: dict(kind, confidence, ...), see CalibRefine.
    """

    def __init__(
        self,
        bev_channels: int,
        img_channels: int,
        point_cloud_range: Sequence[float],
        strides: Sequence[int],
        levels: Sequence[int] | None = None,
        tokens: Mapping[str, Any] | None = None,
        geometry: Mapping[str, Any] | None = None,
        film: Mapping[str, Any] | None = None,
        select: Mapping[str, Any] | None = None,
        sample: Mapping[str, Any] | None = None,
        calib_refine: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels, init_cfg)
        def part(name: str, kind: Callable[..., Any], given: Mapping[str, Any] | None, *known: Any) -> Any:
            return build_part(kind, given, f'model.fusion_layer.{name}', *known)

        grid, dim, self.token_level, among = part('tokens', self._token_settings, tokens)
        reach, stride = self.point_cloud_range, self.strides[self.token_level]
        self.calib_refine = part(
            'calib_refine', CalibRefine, calib_refine, bev_channels, img_channels, stride, self.token_level, reach)
        self.film = part('film', FiLM, film, bev_channels, dim, reach)
        reader, among_cells, back = part('sample', self._build_reader, sample, dim)
        has_tokens = self.film.kind != 'off' or isinstance(reader, TokenAttention)
        # Made in any case, so that wrong settings are told.
        token_grid, token_geometry = TokenGrid(img_channels, dim, stride, grid), part('geometry', TokenGeometry, geometry, dim)
        self.tokens = token_grid if has_tokens else None
        self.geometry = token_geometry if has_tokens else None
        self.token_attn = None
        if has_tokens and among is not None:
            self.token_attn = part('tokens.self_attn', CameraAttention, among, dim)
        self.posed = any(getattr(one, 'encoding', None) is not None for one in (self.token_attn, reader))
        self.select = None if reader is None else part('select', CellSelection, select, bev_channels, reach)
        self.sample = None if reader is None else CellUpdate(bev_channels, dim, reach, reader, among_cells, back)
        if self.sample is None and self.film.kind == 'off':
            raise ValueError('fusion_layer: film and sample are both off, so FuTrPlusPlus would do nothing')

    @property
    def read_levels(self) -> tuple[int, ...]:
        """As FusionLayer.read_levels: only deformable sampling looks beyond the tokens' level."""
        deformable = self.sample is not None and isinstance(self.sample.reader, PillarSampling)
        return self.levels if deformable else (self.levels[self.token_level],)

    def fuse_levels(self, bev_lidar: Tensor, maps: list[Tensor], calibration: Calibration) -> FusionOutput:
        """As FusionLayer.fuse_levels. aux holds what the stages leave: heatmap_logits (V, 1, H, W), cells (V, K) int64 and
        their cell_score (V, K), pose_correction (V, N, 4, 4), confidence_logits (V, N), cam_valid (V, N)."""
        state = FusionState(bev_lidar, bev_lidar, maps, None, calibration, calibration.cam_valid.float())
        state = self.calib_refine(state)
        if self.tokens is not None and self.geometry is not None:
            tokens = self.geometry(self.tokens(maps[self.token_level], calibration), state.calibration)
            if self.posed:
                tokens = replace(tokens, views=token_views(state.calibration, self.tokens.grid, self.tokens.stride))
            if self.token_attn is not None:
                tokens = self.token_attn(tokens)
            state = self.film(replace(state, tokens=tokens))
        aux = dict(state.aux)
        if self.select is not None and self.sample is not None:
            cells = self.select(state)
            state = self.sample(state, cells)
            found = dict(heatmap_logits=cells.logits, cells=cells.index, cell_score=cells.score)
            aux.update({name: value for name, value in found.items() if value is not None})
        return FusionOutput(state.bev, aux)

    def loss(self, aux: dict[str, Tensor], truth: FusionTruth) -> dict[str, Tensor]:
        """loss_fusion_heatmap, loss_calib_pose, loss_calib_confidence: those of the stages that are on."""
        losses = self.calib_refine.loss(aux, truth)
        if self.select is not None:
            losses.update(self.select.loss(aux, truth))
        return losses

    def _token_settings(self, grid: int | Sequence[int] = 8, dim: int = 128, level: int = 0, self_attn: Mapping[str, Any] | None
                        = None) -> tuple[int | Sequence[int], int, int, Mapping[str, Any] | None]:
        if not 0 <= level < len(self.levels):
            raise ValueError(f'fusion_layer.tokens.level={level} is none of the {len(self.levels)} used levels')
        return grid, dim, level, self_attn

    def _build_reader(self, dim: int, kind: str = 'deformable', num_heads: int = 8, num_points: int = 8,
                      heights_m: Sequence[float] = (-1.5, -0.5, 0.5, 1.5), radius_px: float = 64.0,
                      self_attn: bool | Mapping[str, Any] = False, film_back: bool = False,
                      encoding: Mapping[str, Any] | None = None,
                      ) -> tuple[nn.Module | None, CellSelfAttention | None, CellFiLM | None]:
        """What the stage sample is made of; num_points, heights_m, radius_px belong to 'deformable', encoding to 'tokens'."""
        check_kind('sample', kind, SAMPLE_KINDS)
        if encoding is not None and kind != 'tokens':
            raise ValueError(f"fusion_layer.sample.encoding is of cells that attend to tokens, but kind={kind!r}: set "
                             "kind='tokens', or leave it out")
        if kind == 'off':
            return None, None, None
        reach = self.point_cloud_range
        reader = TokenAttention(dim, num_heads, encoding, reach) if kind == 'tokens' else PillarSampling(
            dim, self.img_channels, self.strides, heights_m, num_heads, num_points, radius_px)
        among = None
        if self_attn is not False:
            settings = self_attn if isinstance(self_attn, Mapping) else {}
            among = build_part(CellSelfAttention, settings, 'model.fusion_layer.sample.self_attn', dim, num_heads, reach)
        return (reader, among,
                CellFiLM(self.bev_channels, dim) if film_back else None)

    typed_parts = dict(tokens=_token_settings, geometry=TokenGeometry, film=FiLM, select=CellSelection, sample=_build_reader,
                       calib_refine=CalibRefine)
    """What is built of the settings that are parts of the config without a type."""
