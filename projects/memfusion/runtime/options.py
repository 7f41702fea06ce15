"""Runtime. In: the words of `--cfg-options`. Out: values by key; one line for an option of another kind than it replaces."""

from __future__ import annotations

import difflib
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from .errors import UserError
from .run_checks.walk import RUN_KEYS, own_parts

_QUOTES = '\'"'
_BRACKETS = {'(': ')', '[': ']'}
_READ_ELSEWHERE = frozenset((  # by MMEngine's Runner from its whole config, and by tools
    'runner_type', 'find_unused_parameters', 'sync_bn', 'model_wrapper_cfg', 'compile', 'activation_checkpointing',
    'efficient_conv_bn_eval', 'custom_imports', 'tta_model', 'tta_pipeline', 'class_names', 'num_steps'))
_NUMBER = re.compile(r'[-+]?(\d|\.\d|inf|nan|infinity)', re.IGNORECASE)


class OptionsAction(DictAction):
    """MMEngine's DictAction, but values are kept as they are written.

    Spaces stay (MMEngine's deletes them), and a quoted value is text whatever it looks like, commas included. Unquoted values
    are read as MMEngine's: numbers, True, False, None, and lists as `1,2` or `[1, (2, 3)]`; spaces around a list's elements
    do not count.
    """

    def __call__(self, parser: ArgumentParser, namespace: Namespace, values: str | Sequence[Any] | None,
                 option_string: str | None = None) -> None:
        """Adds the options to those that are there.

        Raises:
            UserError: naming the option, where it has no key, no `=` or a bracket or quote that is not closed.
        """
        options = dict(getattr(namespace, self.dest, None) or {})
        for word in [values] if isinstance(values, str) else values or ():
            key, equals, value = word.partition('=')
            if not equals or not key.strip():
                raise UserError(f'{option_string or "--cfg-options"} {word}: is not KEY=VALUE: write the key, =, and the value '
                                'without spaces around =; quote a value that has spaces')
            try:
                options[key.strip()] = read_value(value)
            except ValueError as error:
                raise UserError(f'{option_string or "--cfg-options"} {word}: {error}') from error
        setattr(namespace, self.dest, options)


def read_value(text: str) -> Any:
    """The value that `text` writes, see OptionsAction; ValueError where a bracket or quote of a list is not closed."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] in _QUOTES and text.find(text[0], 1) == len(text) - 1
    if quoted:
        inner = text[1:-1]
        # Quotes around a list are shells' and older commands': it is still a list.
        return read_value(inner) if _is_bracketed(inner.strip()) else inner
    if _is_bracketed(text):
        values = [read_value(part) for part in _split(text[1:-1])]
        return tuple(values) if text[0] == '(' else values
    if ',' in text:
        return [read_value(part) for part in _split(text)]
    return _scalar(text)


def _is_bracketed(text: str) -> bool:
    return len(text) > 1 and text[0] in _BRACKETS and text[-1] == _BRACKETS[text[0]]


def _split(text: str) -> list[str]:
    """The parts between commas that are in no bracket and no quotes; a comma at the end adds none."""
    parts, closers, quote, start = [], [], '', 0
    for place, char in enumerate(text):
        if quote:
            quote = '' if char == quote else quote
        elif char in _QUOTES and not text[start:place].strip():  # an apostrophe inside a word is none
            quote = char
        elif char in _BRACKETS:
            closers.append(_BRACKETS[char])
        elif char in _BRACKETS.values():
            if not closers or closers.pop() != char:
                raise ValueError(f'has a "{char}" that closes nothing; quote a value that is no list')
        elif char == ',' and not closers:
            parts.append(text[start:place])
            start = place + 1
    if closers or quote:
        raise ValueError(f'misses a {closers[-1] if closers else quote}; quote a value that is no list')
    return [*parts, text[start:]] if text[start:].strip() else parts


def _scalar(text: str) -> Any:
    if _NUMBER.match(text):
        for kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                pass
    return {'true': True, 'false': False}.get(text.lower(), None if text == 'None' else text)


# -- an option and what it replaces -----------------------------------------------------------------------------------
def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raises UserError for an option that does not belong into the config or is of another kind than what it replaces.

    A new key is allowed under a part that exists (MMEngine's habit), with a warning; a key whose parent does not exist is a
    spelling mistake.
    """
    for key, value in options.items():
        there, old = _find(cfg, key)
        if there:
            _check_kind(key, old, value)
            _check_is_read(cfg, key)


def _find(cfg: Config, key: str) -> tuple[bool, Any]:
    """Whether the config has the key, and its value; UserError where its parent does not exist, a warning where it is new."""
    node: Any = cfg._cfg_dict
    parts = key.split('.')
    for depth, part in enumerate(parts):
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                raise UserError(f'--cfg-options {key}: "{".".join(parts[:depth])}" is a list of {len(node)}: "{part}" '
                                'is not an index into it')
            node = node[int(part)]
        elif not isinstance(node, Mapping):
            raise UserError(f'--cfg-options {key}: "{".".join(parts[:depth])}" is {node!r}, it has no parts')
        elif part in node:
            node = node[part]
        else:
            hint = _nearest(parts, depth, node)
            if depth + 1 < len(parts):
                raise UserError(f'--cfg-options {key}: the config has no "{".".join(parts[:depth + 1])}"{hint}')
            if depth == 0 and part in RUN_KEYS | _READ_ELSEWHERE:
                return False, None
            if 'type' not in node or hint:  # otherwise it is as likely an argument of that type with a default
                print(f'warning: --cfg-options {key}: is new to the config{hint}', file=sys.stderr)
            return False, None
    return True, node


def _nearest(parts: list[str], depth: int, node: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(parts[depth], [str(name) for name in node], n=1)
    return f'; did you mean "{".".join([*parts[:depth], close[0]])}"?' if close else ''


def _check_kind(key: str, old: Any, value: Any) -> None:
    """A part stays a part, a list of parts such a list, text text, a number a number; None switches off what may be off."""
    wanted = None if value is None or old is None else _wanted(key, old, value)
    if value is None and key.rsplit('.', 1)[-1].lstrip('-').isdigit() and isinstance(old, Mapping):
        wanted = 'is one of a list of parts, which cannot be None: set the list anew in a config file'
    if wanted:
        raise UserError(f'--cfg-options {key}={value!r}: {key} {wanted}')


def _wanted(key: str, old: Any, value: Any) -> str | None:
    """What may stand for `old`, in words, where `value` may not."""
    if isinstance(old, Mapping):
        return None if isinstance(value, Mapping) else (
            f'is a part of the config with keys of its own ({_first(old)}): give {key}.KEY=VALUE, or None to leave it out')
    if isinstance(old, (list, tuple)):
        return _wanted_list(key, old, value)
    if isinstance(old, str):
        what = f"takes text, as {old!r} is: quote what looks like a number or a list, {key}='\"TEXT\"'"
        return None if isinstance(value, str) else what
    if isinstance(old, bool):
        return None if isinstance(value, int) and value in (0, 1) else 'takes True or False'
    if isinstance(old, Real) and isinstance(value, (bool, str, Mapping)):
        return f'takes a number, as {old!r} is'
    return None


def _wanted_list(key: str, old: Sequence[Any], value: Any) -> str | None:
    if any(isinstance(one, Mapping) for one in old):
        if isinstance(value, (list, tuple)) and not value:
            return None
        return f'is a list of {len(old)} parts: change one by its number, {key}.0.KEY=VALUE'
    if isinstance(value, str) and not Path(value).is_file():  # data sets read class names from a file, too
        return f"takes a list, as {list(old)[:3]} is: write '{key}=[{value}]'"
    return None


def _first(names: Iterable[Any]) -> str:
    shown = [str(name) for name in names]
    return ', '.join(shown[:4]) + (', ...' if len(shown) > 4 else '')


def _check_is_read(cfg: Config, key: str) -> None:
    """UserError or a warning for a variable of the config file: what the file made of it does not change any more."""
    name = key.split('.')[0]
    if name in RUN_KEYS or name in _READ_ELSEWHERE:
        return
    meant = [path for path, _ in own_parts(cfg) if path.rsplit('.', 1)[-1] == name]
    if meant:
        raise UserError(f'--cfg-options {key}: "{name}" is a variable of the config file, which has been used by now: set '
                        f'{", ".join(meant[:4])}')
    print(f'warning: --cfg-options {key}: "{name}" is a variable of the config file, which has been used by now: changing it '
          'may change nothing', file=sys.stderr)
