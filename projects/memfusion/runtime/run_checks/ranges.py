"""Checks of a run, ranges. In: a config. Out: nothing, or the key whose range is not the model's. LiDAR frame, metres."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UserError
from .walk import at, detector, evaluators, steps

_TOLERANCE_M = 1e-3
_PLANE = (0, 1, 3, 4)


def check_ranges(cfg: Mapping[str, Any], phase: str) -> list[str]:
    """Raises UserError where what a phase filters, scores or decodes is not what the model covers.

    In x and y the ranges must be equal. In z a filter may be wider than the model (which then decides), not narrower: the
    other phases would see points that this one does not.

    Returns:
        Warnings: what the config trains on, where a phase that only tests covers something else.
    """
    covered = model_range(cfg)
    if covered is None:
        return []
    for path, key, said in _ranges_of(cfg, phase):
        problem = _problem(said, covered[1])
        if problem:
            raise UserError(_message(path, key, said, covered, problem))
    for path, said in _decoding_ranges(cfg):
        if (any(said[axis] > covered[1][axis] + _TOLERANCE_M for axis in (0, 1, 2))
                or any(said[axis] < covered[1][axis] - _TOLERANCE_M for axis in (3, 4, 5))):
            raise UserError(f'{path}={_show(said)} is narrower than {covered[0]}={_show(covered[1])}: objects beyond it would '
                            'be found and thrown away. Leave it out (model.grid fills it), or widen it')
    warnings = []
    for path, key, said in _ranges_of(cfg, 'train') if phase != 'train' else ():
        problem = _problem(said, covered[1])
        if problem:
            trained = f'{problem}, so the model was trained on another range if it was trained with this config'
            warnings.append(_message(path, key, said, covered, trained))
    return warnings


def model_range(cfg: Mapping[str, Any]) -> tuple[str, Sequence[float]] | None:
    """(path, range) of the model's cells: `model.grid`, or the voxel layer of mmdet3d's own detectors."""
    found = detector(cfg)
    if found is None:
        return None
    for name in ('grid', 'data_preprocessor.voxel_layer'):
        said = at(found[1], f'{name}.point_cloud_range')
        if _is_range(said):
            return f'{found[0]}.{name}.point_cloud_range', said
    return None


def _ranges_of(cfg: Mapping[str, Any], phase: str) -> Iterator[tuple[str, str, Sequence[float]]]:
    for path, step, _ in steps(cfg, phase):
        if 'point_cloud_range' in step:
            yield path, str(step['type']), _six(f'{path}.point_cloud_range', step['point_cloud_range'])
    for path, evaluator in evaluators(cfg, phase):
        if evaluator.get('point_cloud_range') is not None:
            yield path, str(evaluator.get('type')), _six(f'{path}.point_cloud_range', evaluator['point_cloud_range'])


def _decoding_ranges(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[float]]]:
    found = detector(cfg)
    for name in ('pts_bbox_head.bbox_coder.post_center_range', 'test_cfg.pts.post_center_limit_range',
                 'bbox_head.bbox_coder.post_center_range'):
        said = at(found[1], name) if found else None
        if found and said is not None:
            yield f'{found[0]}.{name}', _six(f'{found[0]}.{name}', said)


def _is_range(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 6 and all(isinstance(one, (int, float)) for one in value)


def _six(path: str, value: Any) -> Sequence[float]:
    if not _is_range(value):
        raise UserError(f'{path}={value!r}: takes 6 numbers, the lowest x, y, z and then the highest')
    return value


def _problem(said: Sequence[float], covered: Sequence[float]) -> str | None:
    if any(abs(said[axis] - covered[axis]) > _TOLERANCE_M for axis in _PLANE):
        return 'it must be the same in x and y'
    if said[2] > covered[2] + _TOLERANCE_M or said[5] < covered[5] - _TOLERANCE_M:
        return 'it is narrower in z'
    return None


def _message(path: str, kind: str, said: Sequence[float], covered: tuple[str, Sequence[float]], problem: str) -> str:
    return (f'{path}.point_cloud_range={_show(said)} ({kind}), but {covered[0]}={_show(covered[1])}: {problem}. Write one '
            'range in both')


def _show(values: Sequence[float]) -> str:
    return f'[{", ".join(f"{value:g}" for value in values)}]'
