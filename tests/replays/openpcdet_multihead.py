"""Replays OpenPCDet's multi-head PointPillars: voxels, every stage, targets, losses, a training step, the final lists.

The whole detector is built through the registry from the file's settings, and filled with its weights through the converter
of checkpoints. tests/reference/README.md says what the arrays are.
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
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from replays.compare import difference
from replays.openpcdet_settings import detector_config, head_config, train_config
from torch import Tensor, nn

from projects.convert.openpcdet_multihead import convert, our_names
from projects.memfusion import register  # noqa: F401 - fills the registries

FULL = Path(__file__).resolve().parents[2] / 'configs/temporal/multihead_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
TOLERANCE, BOX_TOLERANCE, YAW_TOLERANCE = 5e-5, 5e-4, 2e-3
LOSS_TOLERANCE, TRAIN_LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3, 1e-3
YAW = 6
Rows = list[tuple[str, float]]


def replay(path: Path, device: str = 'cpu') -> Rows:
    if device != 'cpu':
        raise ValueError('the detector is replayed on the CPU only')
    init_default_scope('mmdet3d')
    return replay_names(path) if path.suffix == '.json' else replay_file(path)


def replay_names(path: Path) -> Rows:
    """Every official entry, through the converter, against the detector of the full config."""
    shapes = json.loads(path.read_text())
    model = MODELS.build(Config.fromfile(FULL).model)
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    names = our_names(shapes)
    rows = [(name, 0.0 if ours is None or own.pop(ours, None) == shapes[name] else math.inf) for name, ours in names.items()]
    return rows + [(name, math.inf) for name in own]


def replay_file(path: Path) -> Rows:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    settings = json.loads(str(arrays.pop('settings')))
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(detector_config(settings)))
    official = _under(arrays, 'weights/')
    fill(model, convert(official))
    data = [points_of(arrays), samples_of(arrays['in/gt_boxes'])]
    rows = replay_stages(model.eval(), *data, arrays)
    rows += replay_training(model.train(), *data, arrays, our_names(official))
    rows += replay_direction(settings, model.pts_bbox_head, data[1], arrays)
    seen = {name for name, _ in rows}
    published = {name for name in arrays if '/weights/' not in f'/{name}' and name not in ('in/points', 'in/gt_boxes')}
    if seen != published:
        raise ValueError(f'arrays that nothing here compares: {sorted(published - seen)}, missing: {sorted(seen - published)}')
    return rows


# -- the stages -------------------------------------------------------------------------------------------------------
@torch.no_grad()
def replay_stages(model: Any, points: list[Tensor], samples: list[Det3DDataSample], arrays: Mapping[str, np.ndarray]) -> Rows:
    inputs = preprocessed(model, points, samples)
    voxels, head = inputs['voxels'], model.pts_bbox_head
    pillars = model.pts_voxel_encoder(voxels['voxels'], voxels['num_points'], voxels['coors'], None, None)
    canvas = model.pts_middle_encoder(pillars, voxels['coors'], len(samples))
    bev = model.pts_neck(model.pts_backbone(canvas))[0]
    ours = {
        'in/voxels': voxels['voxels'], 'in/voxel_num_points': voxels['num_points'], 'in/voxel_coords': voxels['coors'],
        'out/pillar_features': pillars, 'out/spatial_features': canvas, 'out/spatial_features_2d': bev,
        'out/shared_features': head.shared_conv(bev), 'out/anchors': _padded(head.anchors, head.bbox_coder.code_size)}
    ours.update(head_arrays(head, bev, samples, 'out/'))
    offset = 0
    for i, count in enumerate(head.num_classes):
        ours[f'out/head{i}_label_indices'] = torch.arange(offset + 1, offset + count + 1)
        offset += count
    targets = head.targets(samples)
    ours['out/box_cls_labels'], ours['out/reg_weights'] = targets.labels, (targets.labels > 0).float()
    for i, sample in enumerate(model(inputs, samples, mode='predict')):
        found = sample.pred_instances_3d
        ours[f'out/final{i}_pred_boxes'] = centered(found.bboxes_3d.tensor)
        ours[f'out/final{i}_pred_scores'], ours[f'out/final{i}_pred_labels'] = found.scores_3d, found.labels_3d + 1
    return compared(ours, arrays)


def head_arrays(head: Any, bev: Tensor, samples: list[Det3DDataSample], prefix: str) -> dict[str, Tensor]:
    """What the head says, should say and how far they are apart."""
    groups, targets = head([bev]), head.targets(samples)
    ours = {f'{prefix}batch_box_preds': head.decode(groups), f'{prefix}box_reg_targets': targets.codes}
    for i, group in enumerate(groups):
        ours[f'{prefix}head{i}_cls_preds'], ours[f'{prefix}head{i}_box_preds'] = group.cls_logits, group.box_codes
        if head.direction is not None:
            ours[f'{prefix}head{i}_dir_cls_preds'] = group.dir_logits
    losses = head.losses_of(groups, targets, head.anchors)
    ours.update(named_losses(losses, prefix + 'loss_', 'total'))
    if head.direction is not None:
        ours[f'{prefix}dir_targets'] = head.direction.bin_of(targets.codes[..., YAW] + head.anchors[:, YAW])
    return ours


def replay_training(model: Any, points: list[Tensor], samples: list[Det3DDataSample], arrays: Mapping[str, np.ndarray],
                    names: Mapping[str, str | None]) -> Rows:
    """One training step's losses, gradients and running statistics."""
    losses = model(preprocessed(model, points, samples), samples, mode='loss')
    sum(losses.values()).backward()
    ours = named_losses(losses, 'out/train_loss_', '')
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for name in arrays:
        for kind, values in (('train_grad', parameters), ('train_buffer', buffers)):
            if name.startswith(f'out/{kind}/'):
                value = values[names[name.split('/', 2)[2]] or '']
                ours[name] = value.grad if kind == 'train_grad' else value
    return compared(ours, arrays)


def replay_direction(settings: dict[str, Any], head: Any, samples: list[Det3DDataSample],
                     arrays: Mapping[str, np.ndarray]) -> Rows:
    """The variant with direction bins, on the published features; anchors and labels are the other head's."""
    if 'dir_dense_head' not in settings:
        return []
    dense, anchors = settings['dir_dense_head'], settings['model']['DENSE_HEAD']['ANCHOR_GENERATOR_CONFIG']
    bev = torch.from_numpy(arrays['out/spatial_features_2d'])
    config = head_config(dense, dense.get('ANCHOR_GENERATOR_CONFIG', anchors), settings['class_names'], bev.shape[1])
    variant = MODELS.build(dict(**config, point_cloud_range=settings['point_cloud_range'], bev_shape=head.bev_shape,
                                train_cfg=train_config(dense)))
    weights = convert({f'dense_head.{name}': value for name, value in _under(arrays, 'dir/weights/').items()})
    fill(variant, {name.removeprefix('pts_bbox_head.'): value for name, value in weights.items()})
    with torch.no_grad():
        return compared(head_arrays(variant.eval(), bev, samples, 'dir/out/'), arrays)


# -- inputs -----------------------------------------------------------------------------------------------------------
def points_of(arrays: Mapping[str, np.ndarray]) -> list[Tensor]:
    points = torch.from_numpy(arrays['in/points'])
    return [points[points[:, 0] == frame, 1:].contiguous() for frame in range(len(arrays['in/gt_boxes']))]


def samples_of(gt_boxes: np.ndarray) -> list[Det3DDataSample]:
    """(B, G, 10) with the centre's z and classes from 1; rows of zeros are padding."""
    samples = []
    for rows in torch.from_numpy(gt_boxes):
        rows = rows[rows[:, -1] > 0]
        boxes = rows[:, :-1].clone()
        boxes[:, 2] -= boxes[:, 5] / 2
        sample = Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes))
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=boxes.shape[1]), labels_3d=rows[:, -1].long() - 1)
        samples.append(sample)
    return samples


def preprocessed(model: Any, points: list[Tensor], samples: list[Det3DDataSample]) -> dict[str, Any]:
    data = dict(inputs=dict(points=points), data_samples=samples)
    return model.data_preprocessor(data, model.training)['inputs']


def fill(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads every weight; only counters of batches may be missing."""
    counters = {name: value for name, value in model.state_dict().items() if name.endswith('num_batches_tracked')}
    try:
        model.load_state_dict({**counters, **weights}, strict=True)
    except RuntimeError as error:
        raise ValueError(f'the weights do not fit the settings: {error}') from error


# -- comparison -------------------------------------------------------------------------------------------------------
def named_losses(losses: Mapping[str, Tensor], prefix: str, total: str) -> dict[str, Tensor]:
    theirs = dict(loss_cls='cls', loss_bbox='loc', loss_dir='dir')
    named = {prefix + theirs[name]: value.detach() for name, value in losses.items()}
    return {**named, (prefix + total).rstrip('_'): sum(value.detach() for value in losses.values())}


def compared(ours: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> Rows:
    return [(name, _ratio(name, value.detach().numpy(), arrays[name]) if name in arrays else math.inf)
            for name, value in ours.items()]


def _ratio(name: str, ours: np.ndarray, published: np.ndarray) -> float:
    kind = name.rsplit('/', 1)[-1]
    if name.startswith('in/') or published.dtype.kind in 'iu' or kind == 'reg_weights':
        return difference(ours, published)
    if kind == 'batch_box_preds' or kind.endswith('_pred_boxes'):
        return _boxes_apart(ours, published)
    if name.startswith('out/train_grad/'):
        return difference(ours, published, GRADIENT_TOLERANCE * max(float(np.abs(published).max()), 1e-30))
    if 'loss' in kind:
        return difference(ours, published, TRAIN_LOSS_TOLERANCE if 'train' in kind else LOSS_TOLERANCE)
    return difference(ours, published, TOLERANCE)


def _boxes_apart(ours: np.ndarray, published: np.ndarray) -> float:
    """Yaw is compared around the circle."""
    if ours.shape != published.shape:
        return math.inf
    turn = np.angle(np.exp(1j * (ours[..., YAW].astype(np.float64) - published[..., YAW])))
    rest = [axis for axis in range(ours.shape[-1]) if axis != YAW]
    return max(difference(ours[..., rest], published[..., rest], BOX_TOLERANCE),
               difference(turn, np.zeros_like(turn), YAW_TOLERANCE))


def centered(boxes: Tensor) -> Tensor:
    """Boxes with their centre's z instead of the bottom's."""
    return torch.cat([boxes[:, :2], boxes[:, 2:3] + boxes[:, 5:6] / 2, boxes[:, 3:]], dim=1)


def _padded(anchors: Tensor, width: int) -> Tensor:
    """(N, 7) anchors with zeros up to 7 and the numbers beyond a box's first 7 of a code."""
    return torch.cat([anchors, anchors.new_zeros(len(anchors), width - anchors.shape[1])], dim=1)


def _under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): torch.from_numpy(np.asarray(value)) for name, value in arrays.items()
            if name.startswith(prefix)}
