"""Export. In: a detector, its graphs. Out: export.json, all that whoever runs the graphs has to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime
import torch
from mmdet3d.models.dense_heads import CenterHead
from torch import Tensor

from projects.geometry.distortion import MODELS
from projects.memfusion.heads.seen_branch import BRANCH
from projects.memfusion.structures import Calibration

from .graphs import NEXT, RIG, STATE, Tensors
from .streaming import FORMAT
from .tracing import OPSET, numpy_name


def describe(detector: Any, graphs: Sequence[dict[str, Any]], inputs: Tensors, empty: Tensors, classes: Sequence[str],
             origin: dict[str, str], rig: Calibration | None = None) -> dict[str, Any]:
    """What export.json says.

    Args:
        detector: as it was exported.
        graphs: what `trace` says of each, in the order in which they run.
        inputs: what `encode` takes, of any frame.
        empty: the memory of a scene that begins, by name.
        classes: names by label.
        origin: config and checkpoint.
        rig: the cameras; None without.
    """
    return dict(
        format=FORMAT, **origin, versions=dict(torch=torch.__version__, onnxruntime=onnxruntime.__version__, opset=OPSET),
        classes=list(classes), voxels=_voxels(detector, inputs['voxels']) if detector.with_points else None,
        cameras=_cameras(rig), graphs=list(graphs), state=_state(detector, empty), boxes=_boxes(detector.pts_bbox_head))


def _voxels(detector: Any, voxels: Tensor) -> dict[str, Any]:
    layer = detector.data_preprocessor.voxel_layer
    return dict(point_cloud_range=list(layer.point_cloud_range), voxel_size=list(layer.voxel_size),
                max_num_points=layer.max_num_points, max_voxels=layer.max_voxels[1], num_features=voxels.shape[2])


def _cameras(rig: Calibration | None) -> dict[str, Any] | None:
    if rig is None:
        return None
    height, width = rig.img_hw[0, 0].tolist()
    return dict(names=list(rig.cam_names), height=height, width=width, rig=list(RIG),
                lens_models=[MODELS[code] for code in rig.distortion_model[0].tolist()])


def _state(detector: Any, empty: Tensors) -> dict[str, Any]:
    """The memory's tensors by name: where a scene begins they are 0, or poses that are the identity."""
    described = {}
    for name, tensor in empty.items():
        field = name.removeprefix(f'{STATE}_')
        poses = detector.temporal is not None and tensor.shape[-2:] == (4, 4) and tensor.dtype == torch.float64
        described[name] = dict(dtype=numpy_name(tensor), shape=list(tensor.shape), next=f'{NEXT}_{field}',
                               initial='identity' if poses else 'zeros')
    return described


def _boxes(head: Any) -> dict[str, Any]:
    """What stands between a head's decoded boxes and those that it gives, see numpy_boxes."""
    arrays = ['boxes', 'scores', 'labels']
    if not isinstance(head, CenterHead):
        rule = head.decoding
        return dict(arrays=arrays, score_above=float(rule.score_threshold), centre_range=list(rule.post_center_range),
                    tasks=None, nms=None)
    if getattr(head, 'seen_weight', 0):
        arrays.append(BRANCH)
    coder, test = head.bbox_coder, head.test_cfg
    first, tasks = 0, []
    for number in head.num_classes:
        tasks.append(list(range(first, first + number)))
        first += number
    nms = dict(type=test['nms_type'], post_max_size=test['post_max_size'])
    if test['nms_type'] == 'circle':  # which looks at neither the threshold nor the range of test_cfg
        nms |= dict(min_radius=[float(v) for v in test['min_radius']], score_at_least=-1.0, centre_range=[])
    else:
        nms |= dict(iou=float(test['nms_thr']), pre_max_size=test['pre_max_size'],
                    score_at_least=float(test['score_threshold']) or -1.0,
                    centre_range=[float(v) for v in test['post_center_limit_range']])
    return dict(arrays=arrays, score_above=float(coder.score_threshold or -1.0),
                centre_range=[float(v) for v in coder.post_center_range], tasks=tasks, nms=nms)
