"""Demo. In: config, checkpoint, a scene's name. Out: the detector with its weights, the data set, the scene's frames."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.memfusion.runtime.checkpoint import load_weights, safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.run_checks import check_checkpoint, check_run

_SHOWN_SCENES = 6


def load_detector(cfg: Config, checkpoint: str, trust: bool = False) -> Any:
    """The config's detector with its weights, in eval mode, on the GPU where there is one.

    Args:
        trust: read the checkpoint without protection.

    Raises:
        UserError: where the checkpoint is not its own.
    """
    check_run(cfg, 'test')
    model = MODELS.build(cfg.model)
    loaded = safe_load(checkpoint, map_location='cpu', trust=trust)
    load_weights(model, loaded, checkpoint)
    check_checkpoint(loaded, checkpoint, cfg, 'test')
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()


def scenes_of(dataset: Any) -> dict[str, list[int]]:
    """Scene token -> positions of its frames in the data set, in time order; scenes as they come.

    Raises:
        UserError: where the data set does not know scenes.
    """
    if not hasattr(dataset, 'scene_tokens'):
        raise UserError(f'test_dataloader.dataset is {type(dataset).__name__}, which does not know scenes; use '
                        'NuScenesSequenceDataset')
    positions: dict[str, list[int]] = {}
    for position, token in enumerate(dataset.scene_tokens):
        positions.setdefault(token, []).append(position)
    return positions


def find_scene(dataset: Any, scene: str | None) -> tuple[str, list[int]]:
    """A scene's name and the positions of its frames in the data set, in time order.

    Args:
        scene: name or token; None is the first.

    Raises:
        UserError: where the data set has no such scene, or does not know scenes.
    """
    positions = scenes_of(dataset)
    tokens = {dataset.get_data_info(at[0])['scene_name']: token for token, at in positions.items()}
    names = list(tokens)
    if scene is None or scene in tokens:
        name = names[0] if scene is None else scene
        return name, positions[tokens[name]]
    if scene in positions:
        return next(name for name, token in tokens.items() if token == scene), positions[scene]
    shown = difflib.get_close_matches(scene, names, _SHOWN_SCENES) or names[:_SHOWN_SCENES]
    raise UserError(f'--scene {scene}: {dataset.ann_file} has no scene of this name or token; it has {len(names)} scenes, '
                    f'e.g. {", ".join(shown)}')
