"""Replays StreamPETR's head: frames streamed through the memory and the head that configs/query builds.

The head and the memory are those of the config for official checkpoints, at the file's sizes, filled through the converter.
Recomputed from public functions: the tokens' parts (cone, positions before the gate), and what an alone-standing norm or
encoding says. The published memory is 6 entries longer after a frame than before the next, where it is cut: what falls out of
ours is taken from the state before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from replays.compare import difference
from replays.rigs import rig_of
from torch import Tensor

from projects.convert.streampetr import PREFIX, convert, our_names
from projects.encodings.frustum import in_metres, inverse_sigmoid
from projects.encodings.sine import sine_axis, sine_octaves, sine_points
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.queries.remembered import RememberedQueries
from projects.memfusion.structures import FrameBatch, FrameMeta, HeadOutputs, SceneFeatures

CONFIG = Path(__file__).resolve().parents[2] / 'configs/query/streampetr-published_r50_256x704_8xb2-cosine-60e_nus-3d.py'
TOLERANCE, METRES, EXACT = 2e-4, 2e-3, 0.0
IN_METRES = ('reference_point', 'bbox_preds', 'egopose')
Rows = list[tuple[str, float]]


@torch.no_grad()
def replay(path: Path, device: str = 'cpu') -> Rows:
    """Every array of the file."""
    init_default_scope('mmdet3d')
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    settings = json.loads(str(arrays.pop('settings')))
    head, memory = build(settings, _under(arrays, 'weights/'))
    given = {name: torch.from_numpy(value).to(device) for name, value in _under(arrays, 'in/').items()}
    ours = stream(head.to(device), memory, given, settings)
    ours.update(alone(head, given))
    published = _under(arrays, 'out/')
    if set(ours) != set(published):
        raise ValueError(f'arrays that nothing here compares: {sorted(set(published) - set(ours))}, missing: '
                         f'{sorted(set(ours) - set(published))}')
    return [(name, difference(ours[name].cpu().numpy(), value, _tolerance(name))) for name, value in published.items()]


def build(settings: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> tuple[Any, Any]:
    """The head and the memory, at the file's sizes; raises ValueError where weights or settings do not fit."""
    config = Config.fromfile(CONFIG)
    if not settings['with_ego_pos'] or settings['code_size'] != 10:
        raise ValueError('only the head with ego motion and codes of 10 numbers is replayed')
    dim = settings['embed_dims']
    config.merge_from_dict(dict(model=dict(
        temporal=dict(embed_dims=dim, num_slots=settings['memory_len'], num_kept=settings['topk_proposals']),
        pts_bbox_head=dict(
            num_classes=settings['num_classes'],
            queries=dict(num_learned=settings['num_query'], num_propagated=settings['num_propagated']),
            transformer=dict(dim=dim, num_layers=settings['decoder_layers'], num_heads=settings['num_heads'],
                             ffn_dim=settings['feedforward_channels']),
            image_tokens=dict(in_channels=settings['in_channels'], position_range=settings['position_range'],
                              num_depths=settings['depth_num'], depth_start_m=settings['depth_start'],
                              depths='lid' if settings['LID'] else 'linear')))))
    parts = [MODELS.build(dict(config.model[slot], point_cloud_range=settings['pc_range']))
             for slot in ('pts_bbox_head', 'temporal')]
    official = {PREFIX + name: torch.from_numpy(value) for name, value in weights.items()}
    parts[0].load_state_dict({name.removeprefix(PREFIX): value for name, value in convert(official).items()})
    return parts[0].eval(), parts[1]


def stream(head: Any, memory: Any, given: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """All frames, one after the other."""
    rows: list[dict[str, Tensor]] = []
    single: dict[str, Tensor] = {}
    state = None
    for t in range(settings['frames']):
        features, frames = frame(given, t, settings)
        state = memory.align(memory.init_state(features) if state is None else state, frames)
        readout = memory.read(state, features, frames)
        raw = head(features, readout, None)
        kept = RememberedQueries.of(readout.queries, in_metres(head.start_points, head.point_cloud_range), head.quirks)
        after = memory.write(state, readout, HeadOutputs(raw, list), frames)
        rows.append({**_before(kept), **_after(state, after, frames, settings), **_queries(head, kept, len(after.ages)),
                     'topk_indexes': raw.carried.scores.topk(settings['topk_proposals'], dim=1).indices,
                     'all_cls_scores': raw.logits, 'all_bbox_preds': raw.codes})
        if t < 2:
            single.update(_tokens(head, kept, features, t))
        state = after
    return {**single, **{name: torch.stack([row[name] for row in rows]) for name in rows[0]}}


def frame(given: Mapping[str, Tensor], t: int, settings: Mapping[str, Any]) -> tuple[SceneFeatures, FrameBatch]:
    """What frame t shows, and where and when it was."""
    pad = tuple(given['pad_shape'].tolist())
    matrices = given['lidar2img'][t].double().cpu().numpy()
    rig = rig_of(matrices, np.broadcast_to(np.array(pad), (*matrices.shape[:2], 2)), pad)
    fx = rig.img_from_cam[..., 0, 0].double()
    if not torch.allclose(fx, given['intrinsics'][t, ..., 0, 0].double().cpu(), rtol=1e-3):
        raise ValueError('intrinsics are not those of lidar2img')
    device = given['img_feats'].device
    features = SceneFeatures(levels=(given['img_feats'][t],), calibration=rig.to(device))
    metas = []
    for b, pose in enumerate(given['ego_pose'][t].double().cpu().numpy()):
        start = not bool(given['prev_exists'][t, b])
        stamp = float(given['timestamp'][t, b])
        metas.append(FrameMeta(f'{t}-{b}', str(b), t, start, False, stamp, pose, np.eye(4), True, True))
    return features, FrameBatch.from_metas(metas, device)


def _before(kept: RememberedQueries) -> dict[str, Tensor]:
    return {'mem_in_reference_point': kept.references_m, 'mem_in_velo': kept.velocity[..., :2],
            'mem_in_timestamp': kept.age_s[..., None], 'mem_in_egopose': kept.motion}


def _after(before: Any, after: Any, frames: FrameBatch, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The memory after a frame with what falls out of ours at its end."""
    past = settings['memory_len'] - settings['topk_proposals']
    joined = {name: torch.cat([value, before.tensors()[name][:, past:]], dim=1) for name, value in after.tensors().items()
              if value.dim() > 1 and value.shape[1] == settings['memory_len']}
    poses = joined['slot_global_from_bev'] * joined['there'][..., None, None]
    turned = torch.linalg.solve(joined['slot_global_from_bev'][..., :3, :3], joined['velocity'].double()[..., None])
    return {'memory_embedding': joined['embeddings'], 'memory_reference_point': joined['references'],
            'memory_velo': turned[..., :2, 0], 'memory_timestamp': -joined['slot_time_s'][..., None], 'memory_egopose': poses}


def _queries(head: Any, kept: RememberedQueries, batch: int) -> dict[str, Tensor]:
    new, old = head.learned(head.references(batch)), head.encode(kept)
    tgt, query_pos = (torch.cat([mine, theirs[:, :head.num_propagated]], dim=1) for mine, theirs in zip(new, old))
    return dict(tgt=tgt, query_pos=query_pos)


def _tokens(head: Any, kept: RememberedQueries, features: SceneFeatures, t: int) -> dict[str, Tensor]:
    """What image tokens are made of, and the rest of the memory."""
    part, (level,), rig = head.image_tokens, features.levels, features.calibration
    points = part.points(rig, level.shape[-2:])
    tokens, old = part(level, rig), head.encode(kept)
    found = dict(cone=part.cones(points, rig), image_pos=tokens.keys - tokens.values, image_memory=tokens.values,
                 temp_memory=old[0][:, head.num_propagated:], temp_pos=old[1][:, head.num_propagated:])
    if t == 0:
        logits = inverse_sigmoid(points)
        found.update(coords3d_logit=logits.flatten(4).flatten(1, 3), image_pos_raw=part.position_encoder(logits).flatten(1, 3))
    named = {f'frame{t}_{name}': value for name, value in found.items()}
    if t == 0:
        height, width = level.shape[-2:]
        y, x = ((torch.arange(count, device=level.device) + 0.5) / count for count in (height, width))
        named['locations'] = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    return named


def alone(head: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Norms and sines that were fed by themselves."""
    return dict(mln180=head.content_norm(given['mln_x'], given['mln_c180']),
                mln8=head.image_tokens.spatial_alignment(given['mln_x'], given['mln_c8']),
                posemb3d=sine_points(given['pos3d'], head.dim // 2, (1, 0, 2)),
                posemb1d=sine_axis(given['pos1d'][..., 0], head.dim), nerf=sine_octaves(given['nerf_x']))


def _tolerance(name: str) -> float:
    if name == 'topk_indexes':
        return EXACT
    return METRES if any(word in name for word in IN_METRES) else TOLERANCE


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def replay_names(shapes: Mapping[str, list[int]]) -> Rows:
    """Every official entry of the head, through the converter, against the head of the full config."""
    config = Config.fromfile(CONFIG).model
    with torch.device('meta'):
        head = MODELS.build(dict(config.pts_bbox_head, point_cloud_range=config.grid.point_cloud_range))
    own = {PREFIX + name: list(value.shape) for name, value in head.state_dict().items()}
    names = our_names(name for name in shapes if name.startswith(PREFIX))
    rows = [(name, 0.0 if ours is None or own.pop(ours, None) == shapes[name] else math.inf) for name, ours in names.items()]
    return rows + [(name, math.inf) for name in own]
