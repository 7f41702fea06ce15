"""Checks of a run, classes. In: a config, a checkpoint's meta. Out: nothing, or both lists where two parts name others.

Labels are numbers everywhere: whoever has another list, or the same names in another order, calls a car a bicycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .walk import class_of, detector, evaluators, is_kind, loader_datasets, parts, steps


@dataclass(frozen=True)
class ClassList:
    """The names of labels 0, 1, ... as the setting at `path` has them."""

    path: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.path} has {len(self.names)}: {", ".join(self.names)}'


def check_classes(cfg: Mapping[str, Any], phase: str) -> None:
    """Raises UserError where head, data sets, transforms or evaluators of a phase do not mean the same by a label.

    Args:
        cfg: the run's config.
        phase: 'train', 'val' or 'test'.
    """
    read = dict(dataset_classes(cfg, phase))
    head = head_classes(cfg)
    # A head that names none means what it was trained with.
    trained = [] if head else [one for path, one in dataset_classes(cfg, 'train') if path.startswith('train_dataloader.')]
    lists = [*([head] if head else trained), *read.values()]
    for other in lists[1:]:
        _compare(lists[0], other)
    _check_counts(cfg, read)
    for path, step, owner in steps(cfg, phase):
        if owner in read:
            _check_step(path, step, read[owner])
    if lists:
        _check_heads_beside(cfg, lists[0])
        _check_evaluators(cfg, phase, lists[0])


def dataset_classes(cfg: Mapping[str, Any], phase: str) -> Iterator[tuple[str, ClassList]]:
    """(path of the data set, its classes) of each data set of a phase that says or has any."""
    for path, part in loader_datasets(cfg, phase):
        meta = part.get('metainfo')
        said = meta.get('classes') if isinstance(meta, Mapping) else None
        if said is None:
            said = (getattr(class_of(part.get('type')), 'METAINFO', None) or {}).get('classes')
        if said is not None:
            where = f'{path}.metainfo.classes'
            yield path, ClassList(where, read_names(where, said))


def read_names(path: str, said: Any) -> tuple[str, ...]:
    """The names that a config says; a text is the name of a file with a name a line, as MMEngine has it.

    Raises:
        UserError: naming the key, where they are no list of different words.
    """
    if isinstance(said, str):
        if not Path(said).is_file():
            raise UserError(f'{path}={said!r}: takes a list of names, {path}=[{said}] for one; a text would be a file of '
                            'names, and there is none of this name')
        said = [line.strip() for line in Path(said).read_text().splitlines() if line.strip()]
    if not isinstance(said, (list, tuple)) or not said or not all(isinstance(name, str) for name in said):
        raise UserError(f'{path}={said!r}: takes a list of one or more names')
    twice = [name for name in dict.fromkeys(said) if list(said).count(name) > 1]
    if twice:
        raise UserError(f'{path}: names {", ".join(twice)} more than once')
    return tuple(said)


def head_classes(cfg: Mapping[str, Any]) -> ClassList | None:
    """The classes of the detection head, where it names them: `class_names` of its own, or of its tasks one after the other."""
    for path, head in _heads(cfg):
        if 'class_names' in head:
            return ClassList(f'{path}.class_names', read_names(f'{path}.class_names', head['class_names']))
        for key, value in head.items():
            groups = value if isinstance(value, (list, tuple)) else ()
            if groups and all(isinstance(one, Mapping) and 'class_names' in one for one in groups):
                names = [name for number, task in enumerate(groups)
                         for name in read_names(f'{path}.{key}.{number}.class_names', task['class_names'])]
                return ClassList(f'{path}.{key}', read_names(f'{path}.{key}', names))
    return None


def _heads(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    path, model = detector(cfg) or ('', {})
    for name in ('pts_bbox_head', 'bbox_head'):
        if isinstance(model.get(name), Mapping):
            yield f'{path}.{name}', model[name]


def _compare(first: ClassList, other: ClassList) -> None:
    if first.names == other.names:
        return
    if sorted(first.names) == sorted(other.names):
        what = 'the same classes in another order, so every label would mean something else'
    else:
        what = 'other classes'
    raise UserError(f'{first}; {other.path} has {what}: {", ".join(other.names)}. Write the same list, in the same order, in '
                    'both')


def _check_counts(cfg: Mapping[str, Any], read: Mapping[str, ClassList]) -> None:
    """A head that says only how many classes it has."""
    for path, head in _heads(cfg):
        count = head.get('num_classes')
        for one in read.values() if isinstance(count, int) and not isinstance(count, bool) else ():
            if len(one.names) != count:
                raise UserError(f'{path}.num_classes={count}, but {one}. Set num_classes to the number of classes')


# -- what stands beside -----------------------------------------------------------------------------------------------
def _check_step(path: str, step: Mapping[str, Any], data: ClassList) -> None:
    """A transform that knows classes by their place in a list of its own."""
    sampler = step.get('db_sampler')
    if isinstance(sampler, Mapping):
        classes = sampler.get('classes')
        if classes is not None:
            _compare(data, ClassList(f'{path}.db_sampler.classes', read_names(f'{path}.db_sampler.classes', classes)))
        unknown = [name for name in sampler.get('sample_groups') or {} if name not in data.names]
        if unknown:
            raise UserError(f'{path}.db_sampler.sample_groups pastes {", ".join(unknown)}; {data}. Leave them out')
    if 'classes' not in step:
        return
    own = ClassList(f'{path}.classes', read_names(f'{path}.classes', step['classes']))
    if not is_kind(step, 'ObjectNameFilter'):
        _compare(data, own)
    missing = [name for name in data.names if name not in own.names]
    if missing:
        raise UserError(f'{own} (ObjectNameFilter); {data.path} has also {", ".join(missing)}. Write the same list in both')


def _check_heads_beside(cfg: Mapping[str, Any], classes: ClassList) -> None:
    root, model = detector(cfg) or ('', {})
    heads = model.get('task_heads')
    for name, head in heads.items() if isinstance(heads, Mapping) else ():
        path = f'{root}.task_heads.{name}'
        if isinstance(head, Mapping) and 'classes' in head:
            _compare(classes, ClassList(f'{path}.classes', read_names(f'{path}.classes', head['classes'])))
        if is_kind(head, 'ImageCenterHead') and head.get('num_classes') != len(classes.names):
            raise UserError(f'{path}.num_classes={head.get("num_classes")}, but {classes}. Set num_classes to the number of '
                            'classes')


_BEV_FIELD = 'pred_bev_seg'  # where BEVSegHead writes and BEVSegMetric reads unless they say otherwise


def _check_evaluators(cfg: Mapping[str, Any], phase: str, classes: ClassList) -> None:
    _, model = detector(cfg) or ('', {})
    heads = [part for _, part in parts(model.get('task_heads') or {}, '') if is_kind(part, 'BEVSegHead')]
    for path, evaluator in evaluators(cfg, phase):
        if 'classes' in evaluator:
            _compare(classes, ClassList(f'{path}.classes', read_names(f'{path}.classes', evaluator['classes'])))
        groups = evaluator.get('groups')
        if not isinstance(groups, Mapping):
            continue
        unknown = [name for members in groups.values() for name in members if name not in classes.names]
        if unknown:
            raise UserError(f'{path}.groups names {", ".join(unknown)}; {classes}. Leave them out of the groups')
        field = evaluator.get('field', _BEV_FIELD)
        same = [head for head in heads if head.get('field', _BEV_FIELD) == field]
        if heads and not same:
            raise UserError(f'{path}.field={field!r}: no BEVSegHead of the model writes it; there are '
                            f'{sorted({str(head.get("field", _BEV_FIELD)) for head in heads})}')
        for head in same:
            if _plain(head.get('groups')) != _plain(groups):
                raise UserError(f'{path}.groups={_plain(groups)} differs from the groups of its BEVSegHead, '
                                f'{_plain(head.get("groups"))}: channel by channel they must be the same')


def _plain(groups: Any) -> list[tuple[str, list[str]]]:
    return [(str(name), list(members)) for name, members in groups.items()] if isinstance(groups, Mapping) else []


# -- checkpoints ------------------------------------------------------------------------------------------------------
def run_classes(cfg: Mapping[str, Any], phase: str) -> ClassList | None:
    """The classes of a run: the head's, or those of a phase's first data set; None where neither names any."""
    return head_classes(cfg) or next((one for _, one in dataset_classes(cfg, phase)), None)


def check_checkpoint(
    checkpoint: Mapping[str, Any], path: str, cfg: Mapping[str, Any], phase: str, for_training: bool = False,
) -> list[str]:
    """Compares the classes that a checkpoint was trained on with the run's.

    Args:
        checkpoint: what was read, with `meta` (mmdet3d 1.x writes dataset_meta.classes, older versions CLASSES).
        path: its file, for messages.
        cfg: the run's config.
        phase: 'train', 'val' or 'test'.
        for_training: training starts from it (`load_from`): another data set's classes may be wanted then.

    Returns:
        Warnings.

    Raises:
        UserError: naming both lists, where a label means something else than when the checkpoint was trained.
    """
    meta = checkpoint.get('meta')
    names, classes = _trained_classes(meta if isinstance(meta, Mapping) else {}), run_classes(cfg, phase)
    weights = checkpoint.get('state_dict', checkpoint)
    if classes is None or names is None or names == classes.names or not any(
            str(key).removeprefix('module.').startswith(('pts_bbox_head.', 'bbox_head.')) for key in weights):
        return []
    text = f'{path}: was trained on {len(names)} classes, {", ".join(names)}; {classes}'
    if for_training and sorted(names) != sorted(classes.names):
        return [f"{text}. The head starts from the other classes' weights"]
    raise UserError(f"{text}. Write the checkpoint's list into data sets, head and pipelines, or train anew")


def _trained_classes(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    trained = meta.get('dataset_meta')
    for owner in (trained if isinstance(trained, Mapping) else {}, meta):
        for key in ('classes', 'CLASSES'):
            said = owner.get(key)
            if isinstance(said, Sequence) and not isinstance(said, str) and said:
                return tuple(map(str, said))
    return None
