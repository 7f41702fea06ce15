"""Replays BEVFormer's attention: anchors in the cameras, spatial cross-attention, temporal self-attention.

The two attentions are those of BEVFormerLiteFusion and BEVFormerTemporal, built through the registry with published_quirks.
Rows that fill a camera's queries up are those of queries and places of zeros. tests/reference/README.md says what the arrays
are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from replays.compare import difference
from replays.rigs import rig_of
from torch import Tensor, nn

import projects.memfusion.fusion
import projects.memfusion.memory  # noqa: F401 - both register what is replayed
from projects.common.build import build_from
from projects.encodings.spatial_attention import SeenQueries
from projects.geometry import cell_positions

TOLERANCE, PLACE_TOLERANCE = 1e-5, 5e-3
MIN_DEPTH_M, FAR = 1e-5, 10.0
NOWHERE = -100.0
Rows = list[tuple[str, float]]


@torch.no_grad()
def replay(path: Path, device: str = 'cpu') -> Rows:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    settings = json.loads(str(arrays.pop('settings')))
    given = {name: torch.from_numpy(value).to(device) for name, value in under(arrays, 'in/').items()}
    weights = {name: torch.from_numpy(value) for name, value in under(arrays, 'weights/').items()}
    fusion, temporal = build(settings, given)
    spatial = filled(fusion.layers[0].cross_attention, weights, 'sca.').to(device).eval()
    attention = filled(temporal.layers[0].attention, weights, 'tsa.').to(device).eval()
    ours = {**replay_anchors(spatial, settings, given), **replay_temporal(attention, settings, given)}
    ours |= replay_spatial(spatial, ours, settings, given)
    published = under(arrays, 'out/')
    if set(ours) != set(published):
        raise ValueError(f'arrays that only one side has: {sorted(set(ours) ^ set(published))}')
    tolerances = dict(ref_cam=PLACE_TOLERANCE, bev_mask=0.0)
    return [(name, difference(value.cpu().numpy(), published[name], tolerances.get(name, TOLERANCE)))
            for name, value in ours.items()]


def under(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def build(settings: dict[str, Any], given: dict[str, Tensor]) -> tuple[Any, Any]:
    """A fusion layer and a temporal module of the file's sizes."""
    dim, heads, anchors = settings['embed_dims'], settings['num_heads'], settings['num_z_anchors']
    low, high = settings['pc_range'][2::3]
    height_m = high - low
    image_h = int(given['img_shape'][0])
    heights = [low + float(part) for part in np.linspace(0.5, height_m - 0.5, anchors)]
    fusion = build_from(MODELS, dict(
        type='BEVFormerLiteFusion', bev_channels=dim, img_channels=dim, point_cloud_range=settings['pc_range'],
        bev_shape=(settings['bev_h'], settings['bev_w']), strides=[image_h / rows for rows, _ in settings['level_sizes']],
        layers=dict(num_layers=1, dim=dim, num_heads=heads), cross_attention=dict(
            kind='deformable', num_points=settings['sca_num_points'], heights_m=heights, published_quirks=True)))
    temporal = build_from(MODELS, dict(
        type='BEVFormerTemporal', in_channels=dim, point_cloud_range=settings['pc_range'], hidden_dim=dim, num_heads=heads,
        num_points=settings['tsa_num_points'], published_quirks=True))
    return fusion, temporal


def filled(module: nn.Module, weights: dict[str, Tensor], prefix: str) -> Any:
    module.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)})
    return module


def replay_anchors(spatial: Any, settings: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """ref_3d, ref_2d, and where the anchors lie in the cameras: ours where they have a pixel."""
    grid, low, high = (settings['bev_h'], settings['bev_w']), *np.array(settings['pc_range']).reshape(2, 3)
    cells_m = cell_positions(grid, settings['pc_range']).flatten(0, 1).float()
    heights = spatial.heights_m.cpu().view(-1, 1, 1).expand(-1, len(cells_m), 1)
    points = torch.cat([cells_m.expand(len(heights), -1, -1), heights], dim=-1)
    parts = (points - torch.tensor(low).float()) / torch.tensor(high - low).float()
    height, width = given['img_shape'].tolist()[:2]
    frames, cameras = given['lidar2img'].shape[:2]
    matrices = given['lidar2img'].cpu().double().numpy()
    matrices[..., :2, :] -= 0.5 * matrices[..., 2:3, :]  # published pixels count from the border, ours from the first centre
    rig = rig_of(matrices, np.full((frames, cameras, 2), (height, width)), (height, width))
    every = points.flatten(0, 1).expand(frames, -1, -1)
    uv_px, depth_m, visible = (part.unflatten(2, (len(heights), -1)).transpose(2, 3)
                               for part in rig.project(every, MIN_DEPTH_M))
    # What is not in front of a camera has no pixel; published is division by a depth of MIN_DEPTH_M.
    homogeneous = torch.cat([every, torch.ones_like(every[..., :1])], dim=-1).double()
    behind = torch.einsum('bnij,bpj->bnpi', given['lidar2img'].cpu().double(), homogeneous)[..., :2] / MIN_DEPTH_M
    behind = behind.unflatten(2, (len(heights), -1)).transpose(2, 3)
    pixels = torch.where((depth_m > MIN_DEPTH_M)[..., None], (uv_px + 0.5).double(), behind)
    places = (pixels / torch.tensor([width, height])).float()
    places = torch.where(places.abs() <= FAR, places, NOWHERE)
    return dict(ref_3d=parts.expand(frames, -1, -1, -1), ref_2d=parts[0, :, None, :2].expand(frames, -1, -1, -1),
                ref_cam=places.transpose(0, 1), bev_mask=visible.transpose(0, 1).byte())


def replay_spatial(spatial: Any, anchors: dict[str, Tensor], settings: dict[str, Any],
                   given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the queries read of the levels, with the query."""
    query = given['sca_query']
    places, visible = (anchors[name].transpose(0, 1).to(query.device) for name in ('ref_cam', 'bev_mask'))
    seen = spatial.seen(places[..., None, :], visible.bool())
    levels = [given[f'feat{i}'] for i in range(len(settings['level_sizes']))]
    at, weight = spatial.plan(query, seen, settings['level_sizes'])
    none = SeenQueries(seen.query, seen.filled, torch.zeros_like(seen.places), seen.visible, seen.count)
    at_none, weight_none = spatial.plan(torch.zeros_like(query), none, settings['level_sizes'])
    there = seen.filled[:, :, None, None, None]
    return dict(sca_out=query + spatial(query, levels, seen),
                sca_rebatch_sampling_locations=torch.where(there[..., None], at, at_none),
                sca_rebatch_attention_weights=torch.where(there, weight, weight_none))


def replay_temporal(attention: Any, settings: dict[str, Any], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the queries read of the BEV before and of themselves, with the query."""
    shape, query, position = (settings['bev_h'], settings['bev_w']), given['tsa_query'], given['tsa_query_pos']
    past, shift = given['tsa_prev_bev'], given['tsa_shift']
    places, weights = attention.plan(query, position, shape, past, shift)
    centres = attention.centres(shape, query.device)[:, None].expand(len(query), -1, -1, -1)
    both = torch.stack([centres + shift[:, None, None], centres], dim=1)
    return dict(tsa_ref=both.flatten(0, 1), tsa_sampling_locations=places.flatten(0, 1),
                tsa_attention_weights=weights.flatten(0, 1), tsa_out=query + attention(query, position, shape, past, shift),
                tsa_out_no_history=query + attention(query, position, shape))
