"""Config, no network. In: `model.grid` and a detector's sub-configs. Out: the sub-configs with range and voxels filled in."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from projects.geometry import BEVGrid

from .anchor_ranges import fill_anchor_ranges

Config = MutableMapping[str, Any]
_REACH_M, _HEIGHT_M = 10.0, 10.0
"""How far a box's centre may lie outside the cells, and how high or low, as in the published CenterPoint configs."""
NEED_RANGE_ON_BEV = ('BEVSegHead',)
NEEDS_RANGE = ('PillarFeatureNet', 'DynamicPillarFeatureNet', 'HardVFE', 'DynamicVFE')


def fill_grid(grid: BEVGrid, **parts: Config | None) -> None:
    """Writes the grid into every part that needs it, in place.

    Args:
        grid: the cells.
        parts: data_preprocessor, pts_voxel_encoder, pts_middle_encoder, pts_bbox_head, fusion_layer, task_heads, temporal,
            train_cfg, test_cfg; None is skipped.

    Raises:
        ValueError: where a part already says something else; names its key.
    """
    x, y, z = grid.num_voxels
    cells = dict(voxel_size=list(grid.voxel_size), point_cloud_range=list(grid.point_cloud_range))
    flat = dict(voxel_size=list(grid.voxel_size[:2]), pc_range=list(grid.point_cloud_range[:2]),
                out_size_factor=grid.out_size_factor)
    wanted: dict[str, tuple[Config | None, dict[str, Any]]] = {
        'data_preprocessor.voxel_layer': (_part(parts, 'data_preprocessor', 'voxel_layer'), cells)}
    reach = dict(point_cloud_range=list(grid.point_cloud_range))
    wanted.update({name: (parts.get(name), reach) for name in ('temporal', 'fusion_layer')})
    for name, task in (parts.get('task_heads') or {}).items():
        if task.get('type') in NEED_RANGE_ON_BEV:
            wanted[f'task_heads.{name}'] = (task, reach)
    if parts.get('temporal') is not None:
        network = _part(parts, 'temporal', 'network')
        if network is not None and network.get('type') == 'ImageMemoryNetwork':
            wanted['temporal.network'] = (network, dict(bev_shape=list(grid.bev_shape)))
    encoder = parts.get('pts_voxel_encoder')
    if encoder is not None and encoder.get('type') in NEEDS_RANGE:
        wanted['pts_voxel_encoder'] = (encoder, cells)
    middle = parts.get('pts_middle_encoder')
    if middle is not None:
        scatters = middle.get('type') == 'PointPillarsScatter'
        shape = dict(output_shape=[y, x]) if scatters else dict(sparse_shape=[z + 1, y, x])
        wanted['pts_middle_encoder'] = (middle, shape)
    head = parts.get('pts_bbox_head')
    if head is not None and str(head.get('type')).endswith('CenterHead'):
        wanted['pts_bbox_head.bbox_coder'] = (head.get('bbox_coder'), flat)
        wanted['train_cfg.pts'] = (_part(parts, 'train_cfg', 'pts'),
                                   {**cells, 'grid_size': [x, y, z], 'out_size_factor': grid.out_size_factor})
        wanted['test_cfg.pts'] = (_part(parts, 'test_cfg', 'pts'), flat)
        _fill_reach('pts_bbox_head.bbox_coder', head.get('bbox_coder'), 'post_center_range', grid)
        _fill_reach('test_cfg.pts', _part(parts, 'test_cfg', 'pts'), 'post_center_limit_range', grid)
    if head is not None and head.get('type') == 'AnchorHeadMulti':
        wanted['pts_bbox_head'] = (head, {**reach, 'bev_shape': list(grid.bev_shape)})
    for path, (part, values) in wanted.items():
        if part is not None:
            _fill(path, part, values)
    anchors = _part(parts, 'pts_bbox_head', 'anchor_generator')
    if anchors is not None:
        fill_anchor_ranges(grid, anchors)


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
