"""Demo, viewer. In: what a recording holds. Out: how Rerun's window begins: the scene in 3D, cameras, maps, plots."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any


def layout(cameras: Sequence[str], maps: Sequence[str], plots: bool) -> Any:
    """A rerun.blueprint.Blueprint.

    Args:
        cameras: their names; each image also shows the boxes.
        maps: names of maps.
        plots: whether there are numbers.
    """
    view = importlib.import_module('rerun.blueprint')
    scene = view.Spatial3DView(origin='world', name='scene')
    columns = [scene]
    boxes = ['+ /world/lidar/truth', '+ /world/lidar/predictions']
    if cameras:
        columns.append(view.Grid(*(
            view.Spatial2DView(origin=f'world/cameras/{name}', contents=['+ $origin/**', *boxes], name=name)
            for name in cameras), name='cameras'))
    aside = [view.Spatial2DView(origin=f'maps/{name}', name=name) for name in maps]
    if plots:
        aside.append(view.TimeSeriesView(origin='memory', name='elements in memory'))
    if aside:
        columns.append(view.Vertical(*aside))
    shares = [3, *[2] * bool(cameras), *[1] * bool(aside)]
    return view.Blueprint(view.Horizontal(*columns, column_shares=shares), collapse_panels=True)
