"""Heads, settings of a multi-head. In: what a config says under a key. Out: the dataclass of it, or an error naming the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Settings = TypeVar('Settings')


def read_settings(kind: type[Settings], values: Mapping[str, Any] | None, key: str) -> Settings:
    """A dataclass `kind` of the values; None is no values.

    Raises:
        ValueError: naming the key and the setting, where one is unknown, missing or wrong.
    """
    rows = fields(kind)  # type: ignore[arg-type]
    known, values = [row.name for row in rows], values or {}
    needed = [row.name for row in rows if row.default is MISSING and row.default_factory is MISSING]
    unknown, missing = [name for name in values if name not in known], [name for name in needed if name not in values]
    if unknown or missing:
        raise ValueError(f'{key}: {"no setting" if unknown else "there is no"} {(unknown or missing)[0]!r}; it takes {known}')
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{key}={dict(values)}: {error}') from error
