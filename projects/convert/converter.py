"""Converter. In: a converter's name and two paths. Out: a checkpoint of ours that fits its config completely."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.memfusion.data.files import partial_path
from projects.memfusion.runtime.checkpoint import check_finite, safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry, prepare_config

from . import openpcdet_multihead

_REPO = Path(__file__).resolve().parents[2]
_SHOWN = 4


@dataclass(frozen=True)
class Converter:
    """How one kind of checkpoint is converted.

    Attributes:
        weights: official state dict -> ours; ValueError where it is of another network.
        key: where the state dict lies in the file; a bare state dict is taken as well.
        config: of the detector that the weights are for, in the repository.
    """

    weights: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    key: str
    config: str


CONVERTERS = {
    'openpcdet_multihead': Converter(
        openpcdet_multihead.convert, 'model_state',
        'configs/temporal/multihead_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'),
}


def convert_checkpoint(name: str, source: str | Path, target: str | Path, config: str | Path | None = None,
                       trust: bool = False, overwrite: bool = False) -> list[str]:
    """Writes `target` whole or not at all; returns what there is to say.

    Args:
        name: one of CONVERTERS.
        source: the foreign checkpoint.
        target: the file to write; one that exists is an error unless `overwrite`.
        config: the detector that the weights must fit; None takes the published one's.
        trust: read `source` without protection.

    Raises:
        UserError: naming the file and the entries that do not fit.
    """
    if name not in CONVERTERS:
        raise UserError(f'{name}: there is no such converter; there are {", ".join(sorted(CONVERTERS))}')
    converter, target = CONVERTERS[name], Path(target).expanduser()
    if target.is_dir():
        raise UserError(f'{target}: is a folder; give the name of the file to write')
    if target.exists() and not overwrite:
        raise UserError(f'{target}: exists already; give another name, or --overwrite')
    if not target.parent.is_dir():
        raise UserError(f'{target}: there is no folder {target.parent}; make it first')
    cfg = prepare_config(_REPO / converter.config if config is None else config)
    checkpoint = safe_load(str(source), 'cpu', trust)
    official = checkpoint.get(converter.key, checkpoint)
    if not isinstance(official, dict) or not official or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in official.items()):
        raise UserError(f'{source}: has no weights of {name}: neither a dictionary of tensors under {converter.key!r} nor a '
                        'bare one')
    try:
        weights = converter.weights(official)
    except ValueError as error:
        raise UserError(f'{source}: is not a checkpoint of {name}: it has {error}') from error
    check_finite(weights, str(source))
    init_registry()
    model = MODELS.build(cfg.model)
    _check_fit(model, weights, f'{source}: does not fit {config or converter.config}')
    classes = [c for task in cfg.model.pts_bbox_head.tasks for c in task.class_names]
    _save(dict(meta=dict(dataset_meta=dict(classes=classes), cfg=cfg.pretty_text), state_dict=weights), target)
    dropped = len(official) - len(weights)
    return [f'{target}: {len(weights)} of {len(official)} entries of {source} ({dropped} have no use here), classes '
            f'{", ".join(classes)}']


def _check_fit(model: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Raises unless the weights are exactly those that the model has."""
    own = model.state_dict()
    shapes = [f'{name} is {tuple(weights[name].shape)} instead of {tuple(value.shape)}'
              for name, value in own.items() if name in weights and weights[name].shape != value.shape]
    missing = [name for name in own if name not in weights and not name.endswith('num_batches_tracked')]
    foreign = [name for name in weights if name not in own]
    said = [f'{len(names)} {kind}: {", ".join(names[:_SHOWN])}{", ..." if len(names) > _SHOWN else ""}'
            for kind, names in (('missing', missing), ('not in the model', foreign), ('of another shape', shapes)) if names]
    if said:
        raise UserError(f'{what}: {"; ".join(said)}. Give the checkpoint of that model, or --config with the model of this one')


def _save(content: dict[str, Any], target: Path) -> None:
    hidden = partial_path(target)
    try:
        torch.save(content, hidden)
        os.replace(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)
