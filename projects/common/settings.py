"""Common. In: what a config says under a key. Out: the dataclass or module that is built of it, or an error naming the key."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Made = TypeVar('Made')


def read_settings(kind: Callable[..., Made], values: Mapping[str, Any] | None, key: str, **defaults: Any) -> Made:
    """A dataclass `kind` of the values; None is no values.

    Args:
        kind: says what there is, and checks it.
        values: what the config says.
        key: where it says so, for the errors.
        defaults: where they are not those of `kind`.

    Raises:
        ValueError: naming the key and the setting, where one is unknown, missing or wrong.
    """
    said = {**defaults, **(values or {})}
    check_names(kind, said, key)
    try:
        return kind(**said)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{key}={dict(values or {})}: {error}') from error


def build_part(kind: Callable[..., Made], values: Mapping[str, Any] | None, key: str, *known: Any) -> Made:
    """`kind(*known, **values)`, whose own errors say what is wrong; None is no values.

    Raises:
        ValueError: naming the key and the setting, where one is unknown or missing.
    """
    check_names(kind, values or {}, key, len(known))
    return kind(*known, **(values or {}))


def check_names(kind: Callable[..., Any], values: Mapping[str, Any], key: str, skipped: int = 0) -> None:
    """Raises ValueError for settings that `kind` does not have, or cannot do without; the first `skipped` are not settings."""
    parameters = list(inspect.signature(kind).parameters.values())[skipped:]
    known = [parameter.name for parameter in parameters]
    if unknown := [name for name in values if name not in known]:
        raise ValueError(f'{key}: no setting {unknown[0]!r}; it takes {known}')
    if missing := [one.name for one in parameters if one.default is one.empty and one.name not in values]:
        raise ValueError(f'{key}: there is no {missing[0]!r}; it takes {known}')
