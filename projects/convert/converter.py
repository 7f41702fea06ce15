"""Converter. In: a converter's name and two paths. Out: a checkpoint of ours that fits its config completely."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.memfusion.data.files import partial_path
from projects.memfusion.runtime.checkpoint import check_finite, safe_load
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry, prepare_config

from . import openpcdet_multihead, query_detectors
from .detector_names import LIDAR_SLOTS, matches_any

_REPO = Path(__file__).resolve().parents[2]
_SHOWN = 4
Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Converter:
    """How one kind of checkpoint is converted.

    Attributes:
        weights: official state dict -> ours; ValueError where it is of another network.
        key: where the state dict lies in the file; a bare state dict is taken as well.
        config: of the detector that such weights are for, in the repository.
        no_use: regular expressions of entries that our detector has no use for.
        optional: slots that a file may lack as a whole, such as a branch that was trained elsewhere.
    """

    weights: Callable[[Weights], dict[str, Tensor]]
    key: str
    config: Callable[[Weights], str]
    no_use: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


CONVERTERS = {
    'openpcdet_multihead': Converter(
        openpcdet_multihead.convert, 'model_state',
        lambda _: 'configs/temporal/multihead_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', openpcdet_multihead.NO_USE),
    **{name: Converter(partial(query_detectors.convert, name), 'state_dict', partial(query_detectors.config_of, name),
                       design.no_use, tuple(slot for slot in design.slots if slot in LIDAR_SLOTS))
       for name, design in query_detectors.DESIGNS.items()},
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
    chosen = None if config is None else prepare_config(config)  # before the checkpoint, which may be large, is read
    official = _read(source, name, converter.key, trust)
    try:
        weights = converter.weights(official)
    except ValueError as error:
        raise UserError(f'{source}: is not a checkpoint of {name}: it has {error}') from error
    check_finite(weights, str(source))
    path = converter.config(official) if config is None else config
    cfg = prepare_config(_REPO / path) if chosen is None else chosen
    own = skeleton(cfg.model).state_dict()
    weights = _kernels_of_files(weights, own)
    absent = _check_fit(own, weights, converter.optional, f'{source}: does not fit {path}')
    head = cfg.model.pts_bbox_head
    classes = [c for task in head.tasks for c in task.class_names] if 'tasks' in head else list(cfg.class_names)
    _save(dict(meta=dict(dataset_meta=dict(classes=classes), cfg=cfg.pretty_text), state_dict=weights), target)
    dropped = [entry for entry in official if matches_any(converter.no_use, entry)]
    return [f'{target}: {len(official) - len(dropped)} of {len(official)} entries of {source} ({len(dropped)} have no use '
            f'here), for {path}, classes {", ".join(classes)}',
            *([f'no use here: {", ".join(dropped)}'] if dropped else []),
            *([f'nothing of {", ".join(absent)} in the file: train from it with load_from; testing wants every weight']
              if absent else [])]


def _read(source: str | Path, name: str, key: str, trust: bool) -> dict[str, Tensor]:
    """The file's state dict."""
    checkpoint = safe_load(str(source), 'cpu', trust)
    official = checkpoint.get(key, checkpoint)
    if not isinstance(official, dict) or not official or not all(
            isinstance(entry, str) and isinstance(value, Tensor) for entry, value in official.items()):
        raise UserError(f'{source}: has no weights of {name}: neither a dictionary of tensors under {key!r} nor a bare one')
    return official


def skeleton(model_cfg: Mapping[str, Any]) -> nn.Module:
    """The detector without numbers: names and shapes. Its preprocessor, which has no weights, cannot be made without."""
    init_registry()
    with torch.device('meta'):
        return MODELS.build({key: deepcopy(part) for key, part in model_cfg.items() if key != 'data_preprocessor'})


def _kernels_of_files(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sparse kernels (D, H, W, in, out), as they are read from files that say no version; newer files have `out` first."""
    return {name: value.permute(1, 2, 3, 4, 0).contiguous()
            if _is_sparse(name, value) and name in own and value.shape == own[name].shape else value
            for name, value in weights.items()}


def _is_sparse(name: str, value: Tensor) -> bool:
    return name.startswith('pts_middle_encoder.') and value.dim() == 5


def _check_fit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], optional: Iterable[str], what: str) -> list[str]:
    """Raises unless the weights are exactly those that the model has; returns which of the `optional` slots have none."""
    wanted = {name: (*value.shape[1:], value.shape[0]) if _is_sparse(name, value) else tuple(value.shape)
              for name, value in own.items()}
    shapes = [f'{name} is {tuple(weights[name].shape)} instead of {shape}'
              for name, shape in wanted.items() if name in weights and tuple(weights[name].shape) != shape]
    slots, given = ({name.split('.')[0] for name in names} for names in (own, weights))
    absent = [slot for slot in optional if slot in slots - given]
    missing = [name for name in own if name not in weights and not name.endswith('num_batches_tracked')
               and name.split('.')[0] not in absent]
    foreign = [name for name in weights if name not in own]
    said = [f'{len(names)} {kind}: {", ".join(names[:_SHOWN])}{", ..." if len(names) > _SHOWN else ""}'
            for kind, names in (('missing', missing), ('not in the model', foreign), ('of another shape', shapes)) if names]
    if said:
        raise UserError(f'{what}: {"; ".join(said)}. Give the checkpoint of that model, or --config with the model of this one')
    return absent


def _save(content: dict[str, Any], target: Path) -> None:
    hidden = partial_path(target)
    try:
        torch.save(content, hidden)
        os.replace(hidden, target)
    finally:
        hidden.unlink(missing_ok=True)
