"""Checks of a run, kinds of values. In: a part of a config and the class that is built of it. Out: what an argument takes.

The signatures are the settings' types: whatever is registered says in its annotations what its arguments are.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


@dataclass(frozen=True)
class Argument:
    """What an argument is annotated with (Any where nothing is said), its default, and whether this project wrote that."""

    hint: Any
    default: Any
    is_ours: bool


def is_ours(owner: Any) -> bool:
    """Whether a class or function is this project's."""
    return str(getattr(owner, '__module__', '')).startswith('projects.')


@functools.cache
def arguments_of(owner: Callable) -> tuple[Mapping[str, Argument], bool]:
    """The arguments that building `owner` takes, and whether it takes others that are not known.

    Where a class passes `**kwargs` on, its bases' arguments are included.
    """
    classes = inspect.getmro(owner) if inspect.isclass(owner) else (owner,)
    found: dict[str, Argument] = {}
    for one in classes:
        function = one.__dict__.get('__init__') if inspect.isclass(one) else one
        if not inspect.isfunction(function):
            continue
        hints = _hints_of(function)
        parameters = inspect.signature(function).parameters
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name == 'self':
                continue
            hint = hints.get(name, Any)
            default = parameter.default
            if default is None and hint is not Any:  # `x: int = None`, as older code has it
                hint = typing.Optional[hint]  # noqa: UP045 (a value, not an annotation)
            found.setdefault(name, Argument(hint, default, is_ours(one)))
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
            return found, False
    return found, True


def _hints_of(function: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # annotated with names that exist for type checkers only
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Whether a config's value may stand where `hint` is annotated: int for float, list for tuple, never bool for a number."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    kind = origin or hint
    if kind in (None, type(None)):
        return value is None
    if kind is bool:
        return isinstance(value, bool) or (isinstance(value, Integral) and value in (0, 1))
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if kind in _LISTS:
        return _fits_list(value, kind, inner)
    if kind in _DICTS:
        return isinstance(value, Mapping) and (len(inner) < 2 or all(fits(one, inner[1]) for one in value.values()))
    return True  # an object, Any, a type variable: nothing that a config could be held to


def _fits_list(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, collections.abc.Iterable):
        return False
    elements = list(value)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return len(elements) == len(inner) and all(fits(one, part) for one, part in zip(elements, inner))
    return not inner or all(fits(one, inner[0]) for one in elements)


def surely_wrong(value: Any, hint: Any) -> bool:
    """Whether a value cannot be meant where others' code is annotated with `hint`, which may be narrower than what it takes.

    That is a word, True or a part of the config where nothing but numbers, lists of numbers or truth is spoken of.
    """
    kinds = set(_kinds(hint))
    if not kinds or kinds & {'text', 'dict', 'other'} or fits(value, hint):
        return False
    return isinstance(value, (str, Mapping)) or (isinstance(value, bool) and 'truth' not in kinds)


def _kinds(hint: Any) -> Iterable[str]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for one in inner:
            yield from _kinds(one)
        return
    kind: Any = origin or hint
    names: dict[Any, str] = {int: 'whole', float: 'number', str: 'text', bool: 'truth', None: 'none', type(None): 'none'}
    if kind in _LISTS:
        yield 'list'
        yield from ('other' for one in inner if 'text' in set(_kinds(one)))
    elif kind in _DICTS:
        yield 'dict'
    else:
        yield names.get(kind, 'other') if isinstance(kind, collections.abc.Hashable) else 'other'


def describe(hint: Any) -> str:
    """What `hint` takes, in words: 'a whole number or None'."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(describe(one) for one in inner))
        return ' or '.join([*(word for word in words if word != 'None'), *(word for word in words if word == 'None')])
    if origin is typing.Literal:
        return ' or '.join(map(repr, inner))
    kind = origin or hint
    if kind in _LISTS:
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            alike = set(inner)
            of = _plural(inner[0]) if len(alike) == 1 else 'values'
            return f'a list of {len(inner)} {of}'
        return f'a list of {_plural(inner[0])}' if inner else 'a list'
    names = {int: 'a whole number', float: 'a number', str: 'text', bool: 'True or False', type(None): 'None', None: 'None'}
    if kind in _DICTS:
        return 'a part of the config with keys of its own'
    return names.get(kind, getattr(kind, '__name__', str(kind)))


def _plural(hint: Any) -> str:
    return {int: 'whole numbers', float: 'numbers', str: 'words', bool: 'True or False'}.get(hint, 'values')


def is_finite(value: Any) -> bool:
    """False for NaN and the infinities; True for whatever is no number."""
    return not isinstance(value, float) or math.isfinite(value)
