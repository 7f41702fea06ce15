"""Replays names and shapes of official query detectors: every entry, through the converter, against the published configs.

A file may lack slots that the converter allows to be missing (CMT's LiDAR branch).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from mmengine.config import Config

from projects.convert import CONVERTERS
from projects.convert.converter import skeleton

REPO = Path(__file__).resolve().parents[2]


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """Ours with their shapes; an entry that nothing here has raises ValueError in the converter."""
    del device  # names have none
    converter = CONVERTERS[max((name for name in CONVERTERS if path.name.startswith(name)), key=len)]
    official = {name: torch.empty(shape, device='meta') for name, shape in json.loads(path.read_text()).items()}
    shapes = {name: value.shape for name, value in converter.weights(official).items()}
    model = skeleton(Config.fromfile(REPO / converter.config(official)).model)
    given = {name.split('.')[0] for name in shapes}
    own = {name: value.shape for name, value in model.state_dict().items()
           if name.split('.')[0] in given or name.split('.')[0] not in converter.optional}
    return [(name, 0.0 if own.get(name) == shapes.get(name) else math.inf) for name in {**own, **shapes}]
