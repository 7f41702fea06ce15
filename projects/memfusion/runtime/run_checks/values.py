"""Checks of a run, settings. In: a config. Out: nothing, or one line that names the key and what it takes.

What a setting takes is said once: by the annotations of the class that is built of it, or in `limits.SETTINGS`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NoReturn

from ..errors import UserError
from .limits import Limits, limits_of, setting_of
from .signatures import Argument, arguments_of, describe, fits, is_finite, is_ours, surely_wrong
from .walk import class_of, own_parts

_TAKEN_EARLIER = ('type', 'priority', '_scope_', '_delete_')
"""Keys that MMEngine takes out before it builds."""


def check_values(cfg: Mapping[str, Any]) -> None:
    """Raises UserError for the first setting that cannot be what it is set to.

    Kinds (a word for a number), broken or negative counts, shares outside 0..1, NaN anywhere, and arguments that a class of
    this project does not have. What others' classes take is held to their annotations only where it cannot be meant.
    """
    for path, part in own_parts(cfg):
        if isinstance(part, float) and math.isnan(part):
            raise UserError(f'{path}={part!r}: takes a number, and this is none')
        setting = setting_of(path)
        if setting is not None:
            _check(path, part, setting.hint, setting.limits)
        if isinstance(part, Mapping) and 'type' in part:
            owner = class_of(part['type'])
            if owner is not None:
                _check_arguments(path, part, owner)
    for name in ('train', 'val', 'test'):
        _check_workers(f'{name}_dataloader', cfg.get(f'{name}_dataloader'))


def _check_arguments(path: str, part: Mapping[str, Any], owner: Callable) -> None:
    arguments, open_ended = arguments_of(owner)
    ours = is_ours(owner)
    typed_parts: Mapping[str, Callable] = getattr(owner, 'typed_parts', {})
    for name, value in part.items():
        if name in _TAKEN_EARLIER:
            continue
        argument = arguments.get(name)
        if argument is None:
            if ours and not open_ended:
                raise UserError(f'{path}.{name}={_short(value)}: {owner.__name__} has no such setting{_near(name, arguments)}')
        else:
            _check_argument(f'{path}.{name}', name, value, argument)
        if name in typed_parts and isinstance(value, Mapping):
            _check_arguments(f'{path}.{name}', value, typed_parts[name])
            _check_settings(f'{path}.{name}', value, typed_parts[name])


def _check_settings(path: str, part: Mapping[str, Any], owner: Callable) -> None:
    """Settings that own their checks are made, where all that belongs to them is written; UserError with their reason.

    Those with defaults are left out: what stands beside them may complete them (a memory's mask_source its masks).
    """
    if not is_dataclass(owner) or {one.name for one in fields(owner)} != set(part) or any(
            one.default is not MISSING for one in fields(owner)):
        return
    try:
        owner(**part)
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error


def _check_argument(path: str, name: str, value: Any, argument: Argument) -> None:
    hint, limits = limits_of(name, argument.is_ours)
    if setting_of(path) is not None or (type(value) is type(argument.default) and value == argument.default):
        return  # the table knows better, or nothing is said that was not so anyway
    if argument.is_ours or not surely_wrong(value, argument.hint):
        _check(path, value, argument.hint if argument.is_ours else hint, limits)
    else:
        _refuse(path, value, argument.hint, limits)


def _check(path: str, value: Any, hint: Any, limits: Limits) -> None:
    if not fits(value, hint) or not limits.admit(value):
        _refuse(path, value, hint, limits)


def _refuse(path: str, value: Any, hint: Any, limits: Limits) -> NoReturn:
    kind, where = ('a number' if hint is Any else describe(hint)), str(limits)
    if where and 'number' in kind:  # 'a whole number of at least 1 or None'
        head, _, tail = kind.partition(' or None')
        kind = f'{head}{where}{" or None" if kind.endswith(" or None") else tail}'
    numbers = value if isinstance(value, (list, tuple)) else [value]
    finite = '' if limits.infinite or all(map(is_finite, numbers)) else ', finite'
    raise UserError(f'{path}={_short(value)}: takes {kind}{finite}{_letters(value, kind)}')


def _letters(value: Any, kind: str) -> str:
    return f': write [{value}]' if isinstance(value, str) and kind.startswith('a list') and ' or ' not in kind else ''


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _near(name: str, arguments: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, arguments, n=1)
    return f'; did you mean {close[0]}?' if close else f'; it has {", ".join(sorted(arguments))}' if arguments else ''


def _check_workers(path: str, loader: Any) -> None:
    """What torch's DataLoader refuses, in its own words and without the key's name."""
    if isinstance(loader, Mapping) and loader.get('num_workers', 0) == 0:
        for name in ('persistent_workers', 'prefetch_factor'):
            if loader.get(name):
                raise UserError(f'{path}.num_workers=0 cannot go with {path}.{name}={loader[name]!r}: set that to '
                                f'{"False" if name == "persistent_workers" else "None"}, or num_workers to 1 or more')
