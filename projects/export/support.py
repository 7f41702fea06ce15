"""Export. In: a detector, its config. Out: nothing, or an error that names every part that has no form as a graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead

from projects.memfusion.runtime.errors import UserError

MEMORIES = ('TemporalMemory', 'CopyMemory')
QUERY_HEADS = ('CMTHead',)


def check_exportable(detector: Any) -> None:
    """Raises UserError that says by name what cannot be exported, and what can be done."""
    reasons = [*_of_encoders(detector), *_of_head(detector), *_of_memory(detector), *_of_test(detector)]
    if reasons:
        raise UserError('this detector cannot be exported: ' + '; '.join(reasons))


def _of_encoders(detector: Any) -> Iterator[str]:
    if not detector.with_points:
        return
    if detector.data_preprocessor.voxel_type != 'hard':
        yield (f'model.data_preprocessor.voxel_type={detector.data_preprocessor.voxel_type!r}: graphs take voxels of a fixed '
               "number of points ('hard')")
    for slot in ('pts_voxel_encoder', 'pts_middle_encoder'):
        kind = type(getattr(detector, slot))
        names = [base.__name__ for base in kind.__mro__]
        if {'SparseEncoder', 'DynamicVFE', 'DynamicPillarFeatureNet', 'DynamicSimpleVFE'} & set(names):
            yield f'model.{slot}={kind.__name__}: its compiled op has no ONNX form; use pillars (PillarFeatureNet)'


def _of_head(detector: Any) -> Iterator[str]:
    if detector.task_heads:
        yield f'model.task_heads ({", ".join(detector.task_heads)}): only boxes are exported; set task_heads=None'
    head = detector.pts_bbox_head if detector.with_pts_bbox else None
    if head is None:
        yield 'it has no model.pts_bbox_head: only boxes are exported'
        return
    if type(head).__name__ in QUERY_HEADS:
        return
    if not isinstance(head, CenterHead):
        yield f'model.pts_bbox_head={type(head).__name__}: of heads, CenterHead and {", ".join(QUERY_HEADS)} are exported'
        return
    others = {type(task).__name__ for task in head.task_heads if type(task) is not SeparateHead}
    if others:
        yield f'model.pts_bbox_head.separate_head={", ".join(others)}: its compiled op has no ONNX form; use SeparateHead'
    if any('vel' not in task.heads or 'reg' not in task.heads for task in head.task_heads):
        yield 'model.pts_bbox_head.common_heads without reg or vel: boxes of nine numbers are exported'


def _of_memory(detector: Any) -> Iterator[str]:
    memory = detector.temporal
    if memory is None:
        return
    kind = type(memory).__name__
    if kind not in MEMORIES:
        yield f'model.temporal={kind}: of memories, {" and ".join(MEMORIES)} are exported'
        return
    if memory.mem_policy is not None:
        yield 'model.temporal.mem_policy: which frame leaves is chosen by the host; the oldest leaves an exported memory'
    if kind == 'TemporalMemory':
        if memory.long_term is not None:
            yield 'model.temporal.long_term of TemporalMemory: the host decides when it consolidates'
        if memory.masks.needs_boxes:
            yield (f'model.temporal.mask_source={memory.masks.source!r}: NMS stands between the head and the mask; set '
                   'model.temporal.mask_source=occupancy')


def _of_test(detector: Any) -> Iterator[str]:
    if detector.temporal is not None and detector.test_mode.mode != 'streaming':
        yield f'model.test_cfg.mode={detector.test_mode.mode!r}: exported memory streams; set model.test_cfg.mode=streaming'
    seen = detector.seen_scores
    if seen.seen_from is not None or seen.hidden_boxes != 'keep':
        yield (f'model.test_cfg.hidden_boxes={seen.hidden_boxes!r}, seen_from={seen.seen_from!r}: boxes are ranked after NMS, '
               "by the caller; set model.test_cfg.hidden_boxes=keep and seen_from=None")
