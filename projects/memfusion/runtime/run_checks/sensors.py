"""Checks of a run, sensors. In: a config. Out: nothing, or the key of the model that takes points that no frame has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .walk import at, detector, is_kind, steps


def check_points(cfg: Mapping[str, Any], phase: str) -> None:
    """Raises UserError where the model takes points and a phase's pipeline leaves them out of what it packs."""
    found = detector(cfg)
    if found is None:
        return
    path, model = found
    asking = [f'{path}.{key}' for key in ('data_preprocessor.voxel', 'pts_voxel_encoder') if at(model, key)]
    for step_path, step, _ in steps(cfg, phase) if asking else ():
        if is_kind(step, 'Pack3DDetInputs') and 'points' not in step.get('keys', ()):
            raise UserError(f'{step_path}.keys={list(step.get("keys", ()))} has no points, but the model takes them '
                            f"({', '.join(asking)}): add 'points' to the keys and LoadLidarPoints to the pipeline; or, without "
                            'LiDAR, set data_preprocessor.voxel=False and leave pts_voxel_encoder out of the model')
