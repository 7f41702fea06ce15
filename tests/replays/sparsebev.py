"""Replays SparseBEV's transformer: every layer's logits and boxes, and what its parts compute.

The head is built through the registry, as `configs/query/sparsebev_*` have it with published_quirks=True, at the file's sizes;
its weights go through the converter of checkpoints. The plain form that is timed against it is compared as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from replays.compare import difference, read_arrays
from replays.rigs import rig_of
from torch import Tensor

import projects.memfusion.queries  # noqa: F401 - registers the head
from projects.benchmarks.sparsebev_plain import plain_mixing, plain_sampling, regrouped
from projects.common.build import build_from
from projects.convert.sparsebev import convert
from projects.memfusion.queries.sampled_frames import project_points
from projects.memfusion.queries.sparsebev_layer import SparseBEVLayer, Surroundings
from projects.memfusion.structures import History, PastFrame, Readout, SceneFeatures

TOLERANCE, PIXEL_TOLERANCE, LATER_TOLERANCE = 2e-4, 2e-2, 1e-3
EXACT = ('valid', 'sample_view')
MIN_DEPTH_M = 1.0
"""Nearer pixels are not in the file."""
Rows = list[tuple[str, float]]


@torch.no_grad()
def replay(path: Path, device: str = 'cpu') -> Rows:
    with np.load(path, allow_pickle=False) as archive:
        names = archive.files
    arrays = read_arrays(path, names)
    settings = json.loads(str(arrays['settings']))
    if settings['code_size'] != 10:
        raise ValueError(f'code_size={settings["code_size"]} in settings: boxes of 10 numbers can be replayed')
    head = head_of(settings, arrays).to(device).eval()
    given = {name[3:]: torch.from_numpy(value).to(device) for name, value in arrays.items() if name.startswith('in/')}
    around = surroundings_of(head, settings, given)
    ours = whole(head, around, given)
    ours.update(parts(head.decoder.decoder_layer, around, given))
    ours.update(plain(head.decoder.decoder_layer, around, given, settings))
    published = {name[4:] for name in names if name.startswith('out/')}
    missing = published - set(ours)
    if missing:
        raise ValueError(f'arrays that nothing here compares: {sorted(missing)}')
    return [(name, difference(value.cpu().numpy(), arrays['out/' + name.removeprefix('plain ')],
                              tolerance(name, settings['num_frames']))) for name, value in ours.items()]


def tolerance(name: str, num_frames: int) -> float:
    if name.endswith(EXACT):
        return 0.0
    if name == 'sample_pixels':
        return PIXEL_TOLERANCE
    later = name.endswith('_sampled') and name != 'layer0_sampled' and num_frames > 2
    return LATER_TOLERANCE if later else TOLERANCE


def head_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config of the head at the sizes of a file."""
    transformer = dict(
        dim=settings['embed_dims'], num_layers=settings['num_layers'], num_heads=settings['num_heads'],
        ffn_dim=settings['feedforward_channels'], num_groups=settings['num_groups'], num_points=settings['num_points'],
        num_levels=settings['num_levels'], out_points=settings['out_points'])
    return dict(type='SparseBEVHead', num_classes=settings['num_classes'], point_cloud_range=settings['pc_range'],
                num_queries=1, inputs=dict(num_frames=settings['num_frames']), transformer=transformer, published_quirks=True)


def head_of(settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """The head with the file's weights; its own queries are not used."""
    head = build_from(MODELS, head_config(settings))
    official = {f'pts_bbox_head.transformer.{name[8:]}': torch.from_numpy(value) for name, value in arrays.items()
                if name.startswith('weights/')}
    weights = {name.removeprefix('pts_bbox_head.'): value for name, value in convert(official).items()}
    queries = {name: value for name, value in head.state_dict().items() if name.startswith(('first_boxes', 'class_features'))}
    try:
        head.load_state_dict({**queries, **weights}, strict=True)
    except RuntimeError as error:
        raise ValueError(f'the weights do not fit the settings: {error}') from error
    return head


def surroundings_of(head: Any, settings: Mapping[str, Any], given: Mapping[str, Tensor]) -> Surroundings:
    """What the detector would hand on: views frame-major, now first."""
    cameras, frames = settings['num_cams'], []
    matrices, stamps = given['lidar2img'].cpu().numpy(), given['img_timestamp'].cpu().numpy()
    height, width = given['img_shape'].tolist()
    batch = len(matrices)
    for t in range(settings['num_frames']):
        views = slice(t * cameras, (t + 1) * cameras)
        hw = np.tile([height, width], (batch, cameras, 1))
        rig = rig_of(matrices[:, views], hw, (height, width), t_cam=stamps[:, views]).to(given['lidar2img'].device)
        levels = tuple(given[f'feat{level}'][:, views] for level in range(settings['num_levels']))
        frames.append(PastFrame(levels, rig, given['img_timestamp'].new_zeros(batch), (True,) * batch))
    now, past = frames[0], frames[1:]
    features = SceneFeatures(levels=now.levels, calibration=now.calibration)
    return head.surroundings(features, Readout(past=History.of_step(past) if past else None))


def whole(head: Any, around: Surroundings, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All layers' outputs, and what their sampling saw."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    sampling = head.decoder.decoder_layer.sampling
    hook = sampling.register_forward_hook(lambda module, args, out: calls.append((args[0], args[1], out)))
    logits, boxes = head.decoder(given['query_bbox'], given['query_feat'], around)
    hook.remove()
    ours = dict(cls_scores=logits, bbox_preds=boxes, time_diff=around.gaps_s)
    for i, (proposed, query, sampled) in enumerate(calls):
        points_m = sampling.moved(sampling.points(proposed, sampling.offsets(query)), proposed, around.gaps_s)
        ours[f'layer{i}_valid'] = seen_in(points_m, around, sampling.quirks)[2].to(torch.uint8)
        ours[f'layer{i}_sampled'] = sampled
    return ours


def seen_in(points_m: Tensor, around: Surroundings, quirks: Any) -> list[Tensor]:
    """(B, T, Q, G, P, 3) -> pixels, depths, validity of all cameras, (B, T, N, Q, G * P, ...)."""
    queries = points_m.shape[2]
    seen = [project_points(frame, points_m[:, t].flatten(1, 3), quirks) for t, frame in enumerate(around.frames)]
    return [torch.stack(part, dim=1).unflatten(3, (queries, -1)) for part in zip(*seen)]


def parts(layer: SparseBEVLayer, around: Surroundings, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The layer's parts, each fed with the file's queries."""
    boxes, query, attention, sampling = given['query_bbox'], given['query_feat'], layer.self_attn, layer.sampling
    centers_m = layer.centers(boxes)
    offsets = sampling.offsets(query)
    now_m = sampling.points(boxes, offsets)
    points_m = sampling.moved(now_m, boxes, around.gaps_s)
    uv_px, depth_m, valid = seen_in(points_m, around, sampling.quirks)
    chosen = [source.seen.int().argmax(1).flatten(2) for source in
              sampling.image_points(now_m, boxes, query, around.frames, around.gaps_s)]
    return dict(
        sasa_dist=attention.nearness(centers_m), sasa_tau=attention.gen_tau(query), sasa_out=attention(centers_m, query),
        sampling_offset=offsets, sample_points_t0=now_m, sample_points=points_m.transpose(1, 2),
        sample_pixels=torch.where((depth_m > MIN_DEPTH_M)[..., None], uv_px, -1.0), sample_depth=depth_m,
        sample_valid=valid.to(torch.uint8), sample_view=torch.stack(chosen, dim=1), scale_weights=sampling.level_weights(query),
        sampling_out=sampling(boxes, query, around.frames, around.gaps_s, None),
        mixing_out=layer.mixing(given['mixing_x'], query))


def plain(layer: SparseBEVLayer, around: Surroundings, given: Mapping[str, Tensor],
          settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the plain form of the benchmark makes of the same."""
    views = (settings['num_frames'], settings['num_cams'])
    levels = [given[f'feat{level}'].unflatten(1, views) for level in range(settings['num_levels'])]
    height, width = given['img_shape'].tolist()
    sampled = plain_sampling(
        layer.sampling, given['query_bbox'], given['query_feat'], regrouped(levels, settings['num_groups']),
        given['lidar2img'].float().unflatten(1, views), (height, width), around.gaps_s)
    mixed = plain_mixing(layer.mixing, given['mixing_x'], given['query_feat'])
    return {'plain sampling_out': sampled, 'plain mixing_out': mixed}
