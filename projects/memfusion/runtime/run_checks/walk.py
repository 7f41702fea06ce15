"""Checks of a run, how a config is read. In: a config. Out: its parts by path, data sets, steps, what a `type` names."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet3d import registry
from mmengine.config import Config

PHASES = {'train': ('train', 'val'), 'val': ('val',), 'test': ('test',)}
"""The loaders that a phase reads: training scores on the validation set."""

RUN_KEYS = frozenset((
    'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks', 'custom_hooks',
    'data_preprocessor', 'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer',
    'default_scope', 'randomness', 'experiment_name'))
"""What a Runner reads of a config; everything else in a config file is a variable of that file, or read by a tool."""

_REGISTRIES = ('MODELS', 'TRANSFORMS', 'DATASETS', 'METRICS', 'HOOKS', 'DATA_SAMPLERS', 'OPTIMIZERS', 'OPTIM_WRAPPERS',
               'PARAM_SCHEDULERS', 'LOOPS', 'TASK_UTILS', 'VISUALIZERS', 'VISBACKENDS', 'LOG_PROCESSORS', 'EVALUATOR')


def own_parts(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, value) of everything that a Runner reads, depth first; parents come before their parts."""
    for key in cfg:
        if key in RUN_KEYS:
            yield from parts(cfg[key], key)


def parts(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, value) of a node and everything in it."""
    yield path, node
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from parts(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from parts(value, f'{path}.{number}')


def at(cfg: Any, path: str) -> Any:
    """The value at a path of names and numbers, or None where there is nothing."""
    node = cfg
    for name in path.split('.'):
        if isinstance(node, (Mapping, Config)):
            node = node.get(name)
        elif isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node


def class_of(kind: Any) -> Any:
    """The class (or function) that a config's `type` names, or None where no registry knows it."""
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    try:
        return _registered(kind)
    except LookupError:
        return None


@functools.cache
def _registered(kind: str) -> Any:
    # What is not found is not cached (an exception is not): it may be registered later.
    for name in _REGISTRIES:
        found = getattr(registry, name).get(kind) if hasattr(registry, name) else None
        if found is not None:
            return found
    raise LookupError(kind)


def is_kind(part: Any, *names: str) -> bool:
    """Whether a part's type is one of these classes, or inherits from one; by their names, so nothing need be imported."""
    if not isinstance(part, Mapping) or 'type' not in part:
        return False
    found = class_of(part['type'])
    return any(base.__name__ in names for base in getattr(found, '__mro__', ()))


def datasets(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, config) of the innermost data sets of a loader's `dataset`, whatever wraps them."""
    if isinstance(node, (list, tuple)):
        for number, part in enumerate(node):
            yield from datasets(part, f'{path}.{number}')
    elif isinstance(node, Mapping):
        if 'dataset' in node:
            yield from datasets(node['dataset'], f'{path}.dataset')
        elif 'datasets' in node:
            yield from datasets(node['datasets'], f'{path}.datasets')
        else:
            yield path, node


def loader_datasets(cfg: Mapping[str, Any], phase: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, config) of the innermost data sets that a phase reads."""
    for name in PHASES[phase]:
        yield from datasets(at(cfg, f'{name}_dataloader.dataset'), f'{name}_dataloader.dataset')


def steps(cfg: Mapping[str, Any], phase: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(path, step, path of its data set) of all pipelines that a phase runs, those of wrappers and inside steps included."""
    for name in PHASES[phase]:
        root = f'{name}_dataloader.dataset'
        inner = [path for path, _ in datasets(at(cfg, root), root)]
        for path, part in parts(at(cfg, root), root):
            if isinstance(part, Mapping) and 'type' in part and '.pipeline.' in f'{path}.':
                owner = next((one for one in inner if path.startswith(f'{one}.')), inner[0] if inner else root)
                yield path, part, owner


def evaluators(cfg: Mapping[str, Any], phase: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, config) of the evaluators of a phase, one or a list."""
    for name in PHASES[phase]:
        node = cfg.get(f'{name}_evaluator')
        if isinstance(node, Mapping) and 'metrics' in node:
            node = node['metrics']
        for number, part in enumerate(node if isinstance(node, Sequence) and not isinstance(node, str) else [node]):
            if isinstance(part, Mapping):
                yield f'{name}_evaluator.{number}' if isinstance(node, Sequence) else f'{name}_evaluator', part


def detector(cfg: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """(path, config) of the detector itself, without what wraps it for test-time augmentation."""
    path, node = 'model', cfg.get('model')
    while isinstance(node, Mapping) and isinstance(node.get('module'), Mapping):
        path, node = f'{path}.module', node['module']
    return (path, node) if isinstance(node, Mapping) else None
