"""Replays names and shapes of official query detectors: their image encoders against ours.

The heads follow with their converters.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from projects.memfusion import register  # noqa: F401 - fills the registries

MODELS_FOLDER = Path(__file__).resolve().parents[2] / 'configs/_base_/models'
ENCODERS = dict(petrv2='cameras_v99', streampetr='cameras_r50', sparsebev='cameras_r50_fpn', cmt_camera_vov='cameras_v99',
                cmt_fusion_r50='cameras_r50')


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """Every entry of the image encoder."""
    del device  # names have none
    init_default_scope('mmdet3d')
    shapes = json.loads(path.read_text())
    encoder = max((name for name in ENCODERS if path.name.startswith(name)), key=len)
    model = Config.fromfile(MODELS_FOLDER / f'{ENCODERS[encoder]}.py').model
    with torch.device('meta'):
        parts = {slot: MODELS.build(model[slot]) for slot in ('img_backbone', 'img_neck')}
    own = {f'{slot}.{name}': list(value.shape) for slot, part in parts.items() for name, value in part.state_dict().items()}
    names = {name: shape for name, shape in shapes.items() if name.startswith('img_') and not name.startswith('img_roi_head')}
    return [(name, 0.0 if own.get(name) == names.get(name) else math.inf) for name in {**own, **names}]
