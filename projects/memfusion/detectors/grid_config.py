"""Config, no network. In: `model.grid` and a detector's sub-configs. Out: the sub-configs with range and voxels filled in.

A module of ours says itself what it wants of the grid, by `grid_keys` on its class: {its setting: name of a GridValues}. What
mmdet3d's own modules want stands here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.registry import MODELS

from projects.geometry import BEVGrid

from .anchor_ranges import fill_anchor_ranges

Config = MutableMapping[str, Any]
_REACH_M, _HEIGHT_M = 10.0, 10.0
"""How far a box's centre may lie outside the cells, and how high or low, as in the published CenterPoint configs."""
_CELLS = dict(voxel_size='voxel_size', point_cloud_range='point_cloud_range')
_MMDET3D_KEYS: dict[str, dict[str, str]] = {
    **dict.fromkeys(('PillarFeatureNet', 'DynamicPillarFeatureNet', 'HardVFE', 'DynamicVFE'), _CELLS),
    'PointPillarsScatter': dict(output_shape='output_shape'), 'SparseEncoder': dict(sparse_shape='sparse_shape')}


def grid_values(grid: BEVGrid) -> dict[str, Any]:
    """What of the grid may be asked for: ranges and sizes in metres, x y z; shapes in cells."""
    x, y, z = grid.num_voxels
    return dict(
        voxel_size=list(grid.voxel_size), point_cloud_range=list(grid.point_cloud_range), bev_shape=list(grid.bev_shape),
        output_shape=[y, x], sparse_shape=[z + 1, y, x], grid_size=[x, y, z], out_size_factor=grid.out_size_factor,
        voxel_size_xy=list(grid.voxel_size[:2]), low_xy=list(grid.point_cloud_range[:2]))


def fill_grid(grid: BEVGrid, **parts: Config | None) -> None:
    """Writes the grid into every part that needs it, in place.

    Args:
        grid: the cells.
        parts: data_preprocessor, pts_voxel_encoder, pts_middle_encoder, pts_bbox_head, fusion_layer, task_heads, temporal,
            train_cfg, test_cfg; None is skipped.

    Raises:
        ValueError: where a part already says something else; names its key.
    """
    values = grid_values(grid)
    voxels = _part(parts, 'data_preprocessor', 'voxel_layer')
    if voxels is not None:
        _fill('data_preprocessor.voxel_layer', voxels, {name: values[name] for name in _CELLS})
    for path, part in _typed_parts({name: part for name, part in parts.items() if name not in ('train_cfg', 'test_cfg')}):
        wanted = _wanted_by(MODELS.get(part['type']))
        unknown = [name for name in wanted.values() if name not in values]
        if unknown:
            raise ValueError(f'{part["type"]}.grid_keys asks for {unknown}, but the grid has {list(values)}')
        _fill(path, part, {key: values[name] for key, name in wanted.items()})
    head = parts.get('pts_bbox_head')
    kind = None if head is None else MODELS.get(head.get('type'))
    if head is not None and isinstance(kind, type) and issubclass(kind, CenterHead):
        _fill_center_head(grid, values, head, parts)
    anchors = _part(parts, 'pts_bbox_head', 'anchor_generator')
    if anchors is not None:
        fill_anchor_ranges(grid, anchors)


def _typed_parts(parts: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Config]]:
    """Every config of a module below `parts`, with its path."""
    for name, part in parts.items():
        path = f'{prefix}{name}'
        if isinstance(part, MutableMapping):
            if isinstance(part.get('type'), str):
                yield path, part
            yield from _typed_parts(part, f'{path}.')


def _wanted_by(kind: Any) -> Mapping[str, str]:
    """{setting: grid value} of a class of modules, or of the nearest of mmdet3d's that it is made of."""
    if hasattr(kind, 'grid_keys'):
        return kind.grid_keys
    names = [base.__name__ for base in getattr(kind, '__mro__', ())]
    return next((_MMDET3D_KEYS[name] for name in names if name in _MMDET3D_KEYS), {})


def _fill_center_head(grid: BEVGrid, values: Mapping[str, Any], head: Config, parts: dict[str, Config | None]) -> None:
    """CenterHead reads the grid in three places: its coder, train_cfg.pts and test_cfg.pts."""
    flat = dict(voxel_size=values['voxel_size_xy'], pc_range=values['low_xy'], out_size_factor=grid.out_size_factor)
    train = {name: values[name] for name in (*_CELLS, 'grid_size', 'out_size_factor')}
    coder, test = head.get('bbox_coder'), _part(parts, 'test_cfg', 'pts')
    for path, part, wanted in (('pts_bbox_head.bbox_coder', coder, flat), ('test_cfg.pts', test, flat),
                               ('train_cfg.pts', _part(parts, 'train_cfg', 'pts'), train)):
        if part is not None:
            _fill(path, part, wanted)
    _fill_reach('pts_bbox_head.bbox_coder', coder, 'post_center_range', grid)
    _fill_reach('test_cfg.pts', test, 'post_center_limit_range', grid)


def _part(parts: dict[str, Config | None], *path: str) -> Config | None:
    part: Any = parts
    for name in path:
        part = None if part is None else part.get(name)
    return part


def _fill(path: str, part: Config, values: dict[str, Any]) -> None:
    for key, value in values.items():
        said = part.get(key)
        if said is not None and _numbers(said) != _numbers(value):
            raise ValueError(f'model.{path}.{key}={said} contradicts model.grid, which makes it {value}: write it '
                             'only in model.grid')
        part[key] = value


def _fill_reach(path: str, part: Config | None, key: str, grid: BEVGrid) -> None:
    """The range in which decoded centres are kept: the grid and what lies around it; what is said must hold the grid."""
    if part is None:
        return
    low, high = grid.point_cloud_range[:3], grid.point_cloud_range[3:]
    said = part.get(key)
    if said is None:
        part[key] = [low[0] - _REACH_M, low[1] - _REACH_M, min(low[2], -_HEIGHT_M),
                     high[0] + _REACH_M, high[1] + _REACH_M, max(high[2], _HEIGHT_M)]
    elif len(said) and (any(said[axis] > low[axis] or said[3 + axis] < high[axis] for axis in range(3))):
        raise ValueError(f'model.{path}.{key}={list(said)} is narrower than model.grid.point_cloud_range='
                         f'{list(grid.point_cloud_range)}: boxes beyond it would be found and thrown away. Leave it out: '
                         'it is filled from model.grid')


def _numbers(value: Any) -> list[float]:
    return [round(float(v), 6) for v in (value if isinstance(value, (list, tuple)) else [value])]
