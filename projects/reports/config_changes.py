"""Report. In: a config file and the options of a command line. Out: what it says otherwise than the configs it is based on."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from projects.memfusion.runtime.errors import UserError

ABSENT = '-'


@dataclass(frozen=True)
class Change:
    """One key of a config, dotted, with its value in the parent and in the config; ABSENT where it is not there."""

    key: str
    before: str
    after: str


def config_changes(path: str | Path, options: Mapping[str, Any] | None = None) -> list[Change]:
    """What a config and the options on it change of its parent (`_base_`), in the order of the config.

    A config without a parent has only the options' changes.

    Raises:
        UserError: where the config cannot be read.
    """
    file = Path(path)
    bases = parents_of(file)
    try:
        own = Config.fromfile(str(file))
        parent = Config.fromstring(f'_base_ = {bases!r}', '.py') if bases else Config.fromfile(str(file))
    except Exception as error:  # a config is a program: whatever it raises is the config's mistake
        raise UserError(f'{file}: cannot be read as a config: {type(error).__name__}: {error}') from error
    own.merge_from_dict(dict(options or {}))
    before, after = dict(_leaves(parent.to_dict())), dict(_leaves(own.to_dict()))
    keys = [*after, *(key for key in before if key not in after)]
    return [Change(key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys if before.get(key) != after.get(key)]


def parents_of(file: Path) -> list[str]:
    """The files that `_base_` of a config names, with their whole paths; packages' own (`mmdet3d::...`) as they are named.

    Raises:
        UserError: where the file is missing or is no Python.
    """
    try:
        tree = ast.parse(file.read_text())
    except FileNotFoundError as error:
        raise UserError(f'{file}: there is no such config file') from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(f'{file}: cannot be read as a config: {error}') from error
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(isinstance(one, ast.Name) and one.id == '_base_'
                                                     for one in statement.targets):
            named = ast.literal_eval(statement.value)
            bases = [named] if isinstance(named, str) else list(named)
            return [base if '::' in base else str((file.parent / base).resolve()) for base in bases]
    return []


def _leaves(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Dotted keys and what stands there; lists of plain values are one, lists of dicts (pipelines) are numbered."""
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _leaves(one, f'{key}.{name}' if key else str(name))
    elif isinstance(value, (list, tuple)) and any(isinstance(one, Mapping) for one in value):
        for number, one in enumerate(value):
            yield from _leaves(one, f'{key}.{number}')
    else:
        yield key, repr(value)
