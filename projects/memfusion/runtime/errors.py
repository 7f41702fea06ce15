"""Runtime. In: an exception that ended a command line. Out: one line that names the file or key and what to do."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

TRACEBACK_VARIABLE = 'MEMFUSION_TRACEBACK'
_PROJECTS = str(Path(__file__).resolve().parents[2])
_WORKER_MARK = 'Traceback (most recent call last):'


class UserError(Exception):
    """Something the user gave cannot be used; the message names it and says what to do."""


class DownloadError(UserError, ConnectionError):
    """A file that could not be fetched; a ConnectionError for code that does not know ours."""


def run_cli(main: Callable[[], object], defect_code: int | None = None) -> None:
    """Runs `main`; bad input ends it with one line on stderr and exit code 2, a defect with its traceback.

    `MEMFUSION_TRACEBACK=1` shows the whole traceback of bad input too. Ctrl-C exits 130. A group of processes that `main` has
    joined is left at the end.

    Args:
        main: the tool.
        defect_code: exit code of a defect, for tools where Python's own, 1, is a verdict; None raises the exception.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None and defect_code is not None:
            traceback.print_exc()
            sys.exit(defect_code)
        if message is None:
            raise
        sys.stdout.flush()
        print(f'error: {message}', file=sys.stderr)
        if os.environ.get(TRACEBACK_VARIABLE, '0') not in ('', '0'):
            traceback.print_exc()
        else:
            print(f'(set {TRACEBACK_VARIABLE}=1 for the whole traceback)', file=sys.stderr)
        sys.exit(2)
    finally:
        _leave_group(failed=sys.exc_info()[0] is not None)


def _leave_group(failed: bool) -> None:
    """Gloo's threads, alive when the interpreter ends, may abort it and spoil the exit code.

    After an error NCCL's group is left to the end of the process: leaving it may wait for others.
    """
    group = sys.modules.get('torch.distributed')  # not imported for tools that have no use for it
    if group is not None and group.is_available() and group.is_initialized() and (not failed or group.get_backend() == 'gloo'):
        group.destroy_process_group()


def explain(error: BaseException) -> str | None:
    """One line for an error that the user can mend, or None for a defect of the program.

    An error counts as the user's if we raised it on purpose (UserError; or a ValueError raised by our own code,
    wherever in the chain of causes or in whichever `DataLoader` worker it arose), or if it says that a file is not
    there. """
    for link in links_of(error):
        message = _explain_one(link)
        if message is not None:
            return ' '.join(message.split())
    return None


def links_of(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it: the outermost knows best what the user asked for."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _explain_one(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, Exception) and _WORKER_MARK in text:
        return _from_worker(text)
    if isinstance(error, UserError):
        return text
    if isinstance(error, ValueError) and (_is_ours(type(error).__module__) or _raised_by_us(error)):
        return text
    if isinstance(error, OSError) and error.filename is not None and not _inside(str(error.filename), sys.prefix):
        return _explain_file(str(error.filename), error.strerror or type(error).__name__)
    if isinstance(error, KeyError) and ' registry. Please check' in text:
        return text.strip('"\'').split(' Please check')[0] + ' Is the name in the config spelled right?'
    return None


def _explain_file(path: str, reason: str) -> str:
    if path.endswith('.pkl'):
        make = 'python tools/create_data.py nuscenes --root-path DIR --version VERSION'
        return f'{path}: {reason}; check the path, or make the info files with `{make}`'
    return f'{path}: {reason}'


def _is_ours(name: str) -> bool:
    return name.startswith('projects.')


def _raised_by_us(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and _inside(frames[-1].filename, _PROJECTS)


def _inside(path: str, folder: str) -> bool:
    return os.path.abspath(path).startswith(folder + os.sep)


def _from_worker(text: str) -> str | None:
    """Takes the original message out of torch's text for an error that arose in a `DataLoader` worker.

    The text ends with the traceback that the worker formatted: indented frames, then `module.Class: message`.
    """
    last = text.rsplit(_WORKER_MARK, 1)[1]
    match = re.search(r'^(?P<name>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?\Z', last.rstrip(), re.MULTILINE | re.DOTALL)
    files = re.findall(r'^  File "(.+?)", line', last, re.MULTILINE)
    if match is None or not match['message']:
        return None
    name, message = match['name'], match['message']
    if name == 'FileNotFoundError':
        found = re.fullmatch(r"\[Errno \d+\] (.+?): '(.+)'", message.strip())
        return _explain_file(found[2], found[1]) if found else None
    return message if _is_ours(name) or (name == 'ValueError' and files and _inside(files[-1], _PROJECTS)) else None
