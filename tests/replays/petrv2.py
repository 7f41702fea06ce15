"""Replays PETRv2's head: embeddings, masks, decoder, classes and boxes, of any sizes, cameras, frames, depths and layers.

The head is built through the registry from the file's settings, with all of the published code's peculiarities, filled with the
file's weights through the converter of checkpoints, and shown the earlier frames as the slot `temporal` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from replays.compare import difference
from replays.rigs import rig_of
from torch import Tensor

from projects.convert.petrv2 import convert
from projects.memfusion import register  # noqa: F401 - fills the registries
from projects.memfusion.structures import Calibration, History, PastFrame, Readout, SceneFeatures

TOLERANCE, LINEAR_TOLERANCE, BOX_TOLERANCE = 5e-5, 1e-4, 5e-4
EMBEDDINGS = ('coords3d', 'coords_embed', 'fpe_embed', 'sine_embed', 'sine_adapted', 'pos_embed')
FOLLOWED = dict(with_position=True, code_size=10, group_reg_dims=[2, 1, 3, 2, 2], num_reg_fcs=2, normalize=True)
"""Settings that are looked at for nothing but these values."""
Rows = list[tuple[str, float]]


def replay(path: Path, device: str = 'cpu') -> Rows:
    init_default_scope('mmdet3d')
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    settings = json.loads(str(arrays.pop('settings')))
    head = build_head(settings)
    weights = convert({f'pts_bbox_head.{name}': value for name, value in under(arrays, 'weights/').items()})
    fill(head, weights)
    head = head.to(device).eval()
    with torch.no_grad():
        ours = outputs_of(head, *inputs_of(arrays, settings, device))
    return compared(ours, arrays, settings['LID'])


def build_head(settings: Mapping[str, Any]) -> Any:
    """The head of the file's settings, by the registry."""
    other = {name: settings[name] for name, value in FOLLOWED.items() if name in settings and settings[name] != value}
    if other or settings['num_feats'] * 2 != settings['embed_dims']:
        raise ValueError(f'settings that nothing here follows: {other}, num_feats={settings["num_feats"]}')
    frames = settings['num_frames']
    return MODELS.build(dict(
        type='PETRv2', num_classes=settings['num_classes'], point_cloud_range=settings['pc_range'],
        num_queries=settings['num_query'], grouped=settings['with_multi'], published_quirks=True,
        images=dict(
            channels=settings['in_channels'], num_frames=frames, position_range=settings['position_range'],
            multiview=settings['with_multiview'], gate=settings['with_fpe'], divide_by_gap=settings['with_time'],
            depths=dict(kind='lid' if settings['LID'] else 'linear', num=settings['depth_num'],
                        start_m=settings['depth_start'])),
        transformer=dict(dim=settings['embed_dims'], num_layers=settings['decoder_layers'], num_heads=settings['num_heads'],
                         ffn_dim=settings['feedforward_channels'])))


def fill(head: Any, weights: Mapping[str, Tensor]) -> None:
    try:
        head.load_state_dict({name.removeprefix('pts_bbox_head.'): value for name, value in weights.items()}, strict=True)
    except RuntimeError as error:
        raise ValueError(f'the weights do not fit the settings: {error}') from error


def inputs_of(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], device: str) -> tuple[SceneFeatures, Readout]:
    """The newest frame's features, and the others as its past."""
    cameras, padded = settings['num_cams'], tuple(int(size) for size in arrays['in/pad_shape'])
    frames = np.split(np.arange(cameras * settings['num_frames']), settings['num_frames'])
    levels = [torch.from_numpy(arrays['in/feats'][:, views]).to(device) for views in frames]
    stamps = [-arrays['in/timestamp'][:, views] for views in frames]  # seconds after the LiDAR's
    now = np.zeros(len(levels[0]))
    rigs = [rig_of(arrays['in/lidar2img'][:, views], arrays['in/img_shape'][:, views], padded, now, stamp).to(device)
            for views, stamp in zip(frames, stamps)]
    there = (True,) * len(levels[0])
    ages = [torch.full((len(there),), float(age), dtype=torch.float64, device=device) for age in range(1, len(frames))]
    past = [PastFrame((level,), rig, age, there) for level, rig, age in zip(levels[1:], rigs[1:], ages)]
    features = SceneFeatures(levels=(levels[0],), calibration=rigs[0])
    return features, Readout(past=History.of_step(past) if past else None)


def outputs_of(head: Any, features: SceneFeatures, readout: Readout) -> dict[str, Tensor]:
    """Every array that the file may have, (B, view, ...)."""
    past = () if readout.past is None else readout.past.frames()
    levels = [features.levels[0], *(frame.levels[0] for frame in past)]
    rigs: list[Calibration] = [features.calibration, *(frame.calibration for frame in past)]
    size, embedding = tuple(levels[0].shape[-2:]), head.embedding
    cells = [head.input_proj(level.flatten(3).transpose(2, 3)) for level in levels]
    positions, _ = embedding(cells, rigs, size)
    shown = [embedding.shown(rig, size) for rig in rigs]
    there = [torch.ones(*rig.cam_valid.shape, *size, dtype=torch.bool) if one is None else one for rig, one in zip(rigs, shown)]
    cameras = [len(rig.cam_names) for rig in rigs]
    looks = [embedding.looks(rig, size, age) for age, rig in enumerate(rigs)]
    adapted = [part.expand_as(looks[0]) for part in embedding.sine(shown, cameras, size)]
    sines = [torch.cat([published_order(part, embedding.sine.frames).expand(*there[0].shape, -1) for part in
                        embedding.sine.sines(place)], dim=-1) for place in embedding.sine.places(shown, cameras, size)]
    outputs = head(features, readout, None)
    points = head.references(1)
    asking = torch.zeros(len(levels[0]), points.shape[1], head.decoder.layers[0].norms[0].normalized_shape[0]).to(points)
    place = head.query_positions(points)
    return dict(
        coords3d=torch.cat([embedding.shares(*embedding.lines(rig.views(), size)).permute(0, 1, 3, 4, 2).unflatten(-1, size)
                            for rig in rigs], dim=1),
        coords_embed=maps(looks, size), sine_adapted=maps(adapted, size), pos_embed=maps(positions, size),
        fpe_embed=maps([embedding.gated(look, cell) for look, cell in zip(looks, cells)], size),
        sine_embed=torch.cat(sines, dim=1).permute(0, 1, 4, 2, 3),
        mask=torch.cat([~one for one in there], dim=1).to(torch.uint8),
        query_embed=place[0], decoder=head.decoder(asking, place.expand_as(asking), head.image_tokens(features, past)),
        all_cls_scores=outputs.logits, all_bbox_preds=outputs.codes)


def published_order(sine: Tensor, multiview: bool) -> Tensor:
    """Sines and cosines take turns in ours; with an axis of views, the published ones stand apart."""
    return sine.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2) if multiview else sine


def maps(parts: list[Tensor], size: tuple[int, ...]) -> Tensor:
    """(B, N, h * w, E) of each frame -> (B, view, E, h, w)."""
    return torch.cat([part.transpose(2, 3).unflatten(3, size) for part in parts], dim=1)


def compared(ours: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray], increasing: bool) -> Rows:
    published = {name.removeprefix('out/'): value for name, value in arrays.items() if name.startswith('out/')}
    if unknown := sorted(set(published) - set(ours)):
        raise ValueError(f'arrays that nothing here compares: {unknown}')
    tolerances = dict.fromkeys(published, TOLERANCE) | dict(all_bbox_preds=BOX_TOLERANCE, mask=0.0)
    if not increasing:
        tolerances |= dict.fromkeys(EMBEDDINGS, LINEAR_TOLERANCE)
    return [(name, difference(ours[name].cpu().numpy(), value, tolerances[name])) for name, value in published.items()]


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): torch.from_numpy(np.asarray(value)) for name, value in arrays.items()
            if name.startswith(prefix)}
