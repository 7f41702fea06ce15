"""Runtime. In: an error of others' code, the command line's options. Out: one line that names the option it came from."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config

from .errors import UserError, explain, links_of
from .run_checks.signatures import is_ours
from .run_checks.walk import at, class_of

# What a value that cannot be used raises. A RuntimeError counts while building, and where it speaks of shapes.
_VALUE_ERRORS = (TypeError, ValueError, AssertionError, LookupError, AttributeError, ArithmeticError, NotImplementedError)
_SHAPES = re.compile(r'\b(size|sizes|shape|shapes|channels|dimension|dimensions)\b')
_BUILDING = '__init__'
_SHOWN = 300
_CONTAINERS = ('BaseLoop', 'BaseDataset', 'ConcatDataset', 'OptimWrapper', 'BaseModel', 'BaseRunner', 'Runner', 'Hook')
_WORKER_FRAME = re.compile(r'^  File "(.+?)", line \d+, in (\S+)', re.MULTILINE)


@contextmanager
def naming_options(cfg: Config, options: Mapping[str, Any] | None) -> Iterator[None]:
    """Turns an error inside what an option configures into a UserError that names the option.

    Only errors that would otherwise end in a traceback, and only where the traceback leads through the very class whose
    argument the option is: others stay what they are.
    """
    try:
        yield
    except Exception as error:
        known = explain(error)
        message = blamed_option(error, cfg, options or {}) if known is None else _with_option(known, options or {})
        if message is None:
            raise
        raise UserError(message) from error


def _with_option(message: str, options: Mapping[str, Any]) -> str | None:
    """The message with the option that it speaks of, or None where it names that already or speaks of none."""
    for key, value in options.items():
        name = key.rsplit('.', 1)[-1]
        if key not in message and not name.isdigit() and re.search(rf'\b{re.escape(name)}\b', message):
            return f'{message} (--cfg-options {key}={value!r})'
    return None


def blamed_option(error: BaseException, cfg: Config, options: Mapping[str, Any]) -> str | None:
    """The line that names the option which an error comes from, or None. The option of the innermost part counts."""
    frames = list(_frames(error))
    link = list(links_of(error))[-1]
    for key in sorted(options, key=lambda one: (one.rsplit('.', 1)[-1] not in str(link), -one.count('.'))):
        owner = _owner(cfg, key)
        if owner is None:
            continue
        files = {inspect.getsourcefile(one) for one in inspect.getmro(owner)[:-1] if _own_init(one)} \
            if inspect.isclass(owner) else {inspect.getsourcefile(owner)}
        about_value = isinstance(link, _VALUE_ERRORS) or bool(_SHAPES.search(str(link)))
        ours = inspect.getsourcefile(owner) if is_ours(owner) else None  # held to its kinds before: the rest are defects
        # Every traceback of a run leads through these: they count where they raise, not where they call.
        within = frames[-1:] if _runs_others(owner) else frames
        if any(file in files and function == _BUILDING for file, function in frames) or (
                about_value and any(file in files and file != ours for file, _ in within)):
            return f'--cfg-options {key}={options[key]!r}: {owner.__name__} cannot be used with it: {_reason(link)}'
    if options and any(_builds(file, function) for file, function in frames):
        given = ' '.join(f'{key}={value!r}' for key, value in options.items())
        return f'--cfg-options {given}: the run cannot be built with that: {_reason(link)}'
    return None


def _runs_others(owner: Any) -> bool:
    return any(base.__name__ in _CONTAINERS for base in getattr(owner, '__mro__', ()))


def _reason(error: BaseException) -> str:
    text = ' '.join(str(error).split()) or 'no reason given'
    return f'{type(error).__name__}: {text if len(text) <= _SHOWN else text[:_SHOWN] + "..."}'


def _builds(file: str, function: str) -> bool:
    """Whether a frame is MMEngine's putting together of a run, rather than its running."""
    return function == 'build_from_cfg' or (
        file.endswith('mmengine/runner/runner.py') and (function == _BUILDING or function.startswith('build_')))


def _owner(cfg: Config, key: str) -> Any:
    """The class whose argument the option is: that of the nearest part around it with a type."""
    parts = key.split('.')
    if parts[0] == 'model' and parts[1:2] in (['train_cfg'], ['test_cfg']):  # what a detector hands to its head
        parts = ['model', 'pts_bbox_head' if at(cfg, 'model.pts_bbox_head') is not None else 'bbox_head', parts[-1]]
    for depth in range(len(parts) - 1, 0, -1):
        part = at(cfg, '.'.join(parts[:depth]))
        if isinstance(part, Mapping) and 'type' in part:
            return class_of(part['type'])
    return None


def _own_init(kind: type) -> bool:
    # Not of torch's and MMEngine's bases, through whose files every traceback leads.
    return _BUILDING in kind.__dict__ and not kind.__module__.startswith(('torch.nn.modules.module', 'mmengine.model'))


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    """(file, function) of all frames of an error and of its causes, those of a `DataLoader` worker included."""
    for link in links_of(error):
        for frame in traceback.extract_tb(link.__traceback__):
            yield frame.filename, frame.name
        yield from _WORKER_FRAME.findall(str(link))
