"""Replays the heads of CMT: embeddings of tokens and queries, tokens, every decoder layer, every branch.

The head is the one that a config of configs/query builds through the registry, with the file's sizes, and filled through the
converter of checkpoints. The arrays of coordinates are those that its first layers are linear in: the head itself never makes
them. A query's coordinates are compared in the file's way of hiding large ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from replays.compare import difference, read_arrays, read_settings
from replays.rigs import rig_of
from torch import Tensor

from projects.convert.cmt import PREFIX, convert
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries.bev_embedding import cell_fractions
from projects.memfusion.queries.references import in_metres
from projects.memfusion.structures import Readout, SceneFeatures

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'query'
OF_HEAD = dict(CmtHead='cmt_r50_256x704_8xb4-cyclic-20e_nus-3d.py',
               CmtImageHead='cmt-camera_r50_256x704_8xb2-cyclic-20e_nus-3d.py')
TOLERANCE, CENTER_TOLERANCE, RAY_TOLERANCE = 5e-5, 5e-4, 2e-3
HIDDEN_M, HIDES_BEYOND = 100.0, 10.0
BOTH = ('img_pe_coords', 'img_pe', 'query_ray_coords', 'query_bev_sine', 'query_bev_embed', 'query_ray_embed', 'query_embed',
        'memory_tokens', 'decoder', 'head_center', 'head_height', 'head_dim', 'head_rot', 'head_vel', 'head_cls_logits',
        'query_visible')
OF_BEV = ('bev_coords', 'bev_pe_sine', 'bev_pe', 'bev_shared_conv')
SETTINGS = dict(head='CmtHead', hidden_dim=256, in_channels=512, num_heads=8, decoder_layers=6, feedforward_channels=1024,
                num_query=900, depth_num=64, num_cams=6, feature_size=None, grid_size=None, downsample_scale=8,
                pc_range=[-54.0, -54.0, -5.0, 54.0, 54.0, 3.0], num_classes=10, batch=1)


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """(array, difference in parts of its tolerance) of every output of the file."""
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
    fused = 'in/bev_feats' in names
    outputs = BOTH + (OF_BEV if fused else ())
    inputs = ('in/img_feats', 'in/lidar2img', 'in/pad_shape') + (('in/bev_feats',) if fused else ())
    weights = [name for name in names if name.startswith('weights/')]
    arrays = read_arrays(path, ['settings', *inputs, *weights, *(f'out/{name}' for name in outputs)])
    settings = read_settings(arrays, SETTINGS)
    head = build_head(settings, {name.removeprefix('weights/'): torch.from_numpy(arrays[name]) for name in weights}).to(device)
    given = {name.removeprefix('in/'): torch.from_numpy(arrays[name]) for name in inputs}
    found = run(head, given, settings, device)
    return [(name, apart(name, found[name], arrays[f'out/{name}'])) for name in outputs]


def build_head(settings: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """The config's head in the file's sizes, in eval mode."""
    cfg = Config.fromfile(CONFIGS / OF_HEAD[settings['head']]).model.pts_bbox_head.to_dict()
    fused = settings['head'] == 'CmtHead'
    layers = settings['decoder_layers']
    cfg.update(
        num_classes=settings['num_classes'], point_cloud_range=settings['pc_range'], published_quirks=True,
        inputs=dict(img_channels=settings['hidden_dim'], bev_channels=settings['in_channels'] if fused else None,
                    num_depths=settings['depth_num'], ladder='linear'),
        transformer=dict(
            dim=settings['hidden_dim'], num_queries=settings['num_query'], num_layers=layers, num_heads=settings['num_heads'],
            ffn_dim=settings['feedforward_channels'], branch_dim=len(weights['task_heads.0.center.1.bias']) // layers))
    head = MODELS.build(cfg)
    ours = convert({PREFIX + name: value for name, value in weights.items()})
    head.load_state_dict({name.removeprefix(PREFIX): value for name, value in ours.items()}, strict=True)
    return head.eval()


def run(head: Any, given: dict[str, Tensor], settings: dict[str, Any], device: str) -> dict[str, np.ndarray]:
    """Every output array by name, as the file has it."""
    matrices, padded_hw = given['lidar2img'], tuple(given['pad_shape'].tolist())
    batch, cameras = matrices.shape[:2]
    img_hw = given['pad_shape'].expand(batch, cameras, 2)
    rig = rig_of(matrices.numpy(), img_hw.numpy(), padded_hw).to(device)
    level = given['img_feats'].unflatten(0, (batch, cameras)).to(device)
    bev = given['bev_feats'].to(device) if 'bev_feats' in given else None
    features, kept = SceneFeatures(bev, (level,), rig), {}
    head.decoder.register_forward_hook(lambda module, inputs, output: kept.update(decoder=output, tokens=inputs[2]))
    decoded = head.decode_queries(features, Readout(), None)  # with gradients on, which is all layers
    parts = decoded.codes.split([2, 1, 3, 2, 2], dim=-1)
    found = {f'head_{name}': part for name, part in zip(('center', 'height', 'dim', 'rot', 'vel'), parts)}
    found.update(head_cls_logits=decoded.logits, decoder=kept['decoder'], memory_tokens=kept['tokens'].values.transpose(0, 1))

    seen_from, rays = head.pixel_rig(features), head.rv_embedding
    corners = seen_from.rays(level.shape, 0.0)
    found.update(img_pe_coords=rays.coordinates(*corners).flatten(0, 1), img_pe=rays(*corners).flatten(0, 1))
    references = head.reference_points(batch)
    points_m = in_metres(references, head.point_cloud_range)
    coordinates = _query_coordinates(rays, points_m, seen_from)
    positions = head.query_positions(references, seen_from)
    found.update(
        query_ray_coords=coordinates, query_visible=rays.point_rays(points_m, seen_from)[1],
        query_ray_embed=rays.of_points(points_m, seen_from), query_bev_sine=head.bev_embedding.sine(references[..., :2]),
        query_bev_embed=head.bev_embedding(references[..., :2]), query_embed=positions)
    if bev is not None:
        shared = head.shared_conv(bev)
        cells = cell_fractions(shared.shape[2:], bev.device)
        found.update(bev_coords=cells, bev_pe_sine=head.bev_embedding.sine(cells), bev_shared_conv=shared,
                     bev_pe=head.bev_embedding.of_cells(shared.shape[2:]))
    return {name: value.detach().cpu().numpy() for name, value in found.items()}


def _query_coordinates(rays: Any, points_m: Tensor, rig: Any) -> Tensor:
    """(B, N, Q, 3 D) of all cameras, whether they see the query or not."""
    depth_m = rig.to_cam(points_m)[..., 2:]
    origins = rig.views().origins
    return rays.coordinates(origins, (points_m[:, None] - origins[:, :, None]) / depth_m)


def apart(name: str, ours: np.ndarray, published: np.ndarray) -> float:
    """Difference of one array in parts of its tolerance."""
    if name == 'query_visible':
        return difference(ours.astype(published.dtype), published)
    if name == 'query_ray_coords':
        hidden = published == HIDDEN_M
        near = np.abs(ours[hidden]) > HIDES_BEYOND - RAY_TOLERANCE
        return difference(np.where(hidden, published, ours), published, RAY_TOLERANCE) if near.all() else float('inf')
    return difference(ours, published, CENTER_TOLERANCE if name == 'head_center' else TOLERANCE)
