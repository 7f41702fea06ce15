"""Common, below all stages. In: a pickle of plain data, as a file or as bytes. Out: its content; nothing in it is run.

A pickle can call whatever it names. This reader gives it the containers, numbers, strings and numpy arrays that info files
and GT databases are made of; any other name ends the reading before something is called.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from projects.common.numpy_stand_ins import NumpyStandIns, RefusedError

TRUST_VARIABLE = 'MEMFUSION_TRUST_FILES'
TRUST_FLAG = '--trust-files'
READING_ERRORS = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, MemoryError, OverflowError,
                  RuntimeError, TypeError, ValueError)
"""What reading a damaged pickle raises."""


class UnsafeFileError(ValueError):
    """A file that names something to call; the message names the file, what it names and the flag that trusts it."""


class DamagedFileError(ValueError):
    """A file that is no pickle, or not a whole one; the message names it, `reason` is what the reader said."""

    def __init__(self, name: object, reason: str = '') -> None:
        super().__init__(f'{name} is not a readable pickle ({reason})' if reason else str(name))
        self.reason = reason


def trust_files() -> None:
    """`--trust-files`: from here on files are read without protection, in this process and in those that it starts."""
    os.environ[TRUST_VARIABLE] = '1'


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Gives a command line `--trust-files`."""
    parser.add_argument(TRUST_FLAG, nargs=0, action=_TrustFiles, help='read data files and checkpoints without protection: '
                        'they may run any program')


class _TrustFiles(argparse.Action):
    """Takes effect where it is read: what follows needs no argument handed on."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        trust_files()


def files_are_trusted() -> bool:
    """Whether `MEMFUSION_TRUST_FILES` says so."""
    return os.environ.get(TRUST_VARIABLE, '0') not in ('', '0')


def refusal(name: object, found: str, flag: str = TRUST_FLAG) -> str:
    """The sentence for a file that is refused.

    Args:
        name: of the file.
        found: dotted name of what it wants to call.
        flag: the option of the tools that trusts it.
    """
    return (f'{name}: was refused, because reading it would call {found}, which is not among the plain types such a file '
            f'needs. Nothing of it was run. If you are sure that you trust whoever made the file, give {flag}, or set '
            f'{TRUST_VARIABLE}=1')


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle of plain data.

    Raises:
        OSError: the file cannot be opened.
        UnsafeFileError: naming it, if it would create anything else.
        DamagedFileError: naming it, if it is no pickle, or not a whole one.
    """
    with open(path, 'rb') as file:
        return read_pickle(file, path)


def loads_pickle(data: bytes, name: object) -> Any:
    """As `load_pickle`, of bytes that came from the file `name`."""
    return read_pickle(io.BytesIO(data), name)


def read_pickle(file: IO[bytes], name: object) -> Any:
    """As `load_pickle`, of an open file; `name` is for messages."""
    try:
        with _no_collection():
            return pickle.load(file) if files_are_trusted() else _PlainUnpickler(file).load_checked()
    except RefusedError as error:
        raise UnsafeFileError(refusal(name, str(error))) from None
    except READING_ERRORS as error:
        raise DamagedFileError(name, str(error) or type(error).__name__) from error


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of new containers and no garbage: looking for cycles among them again and again takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _PlainUnpickler(pickle.Unpickler):
    """C speed: it only asks Python for names, once each.

    What it hands out cannot be changed by the pickle either: types of C, and bound methods.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        numpy = self._numpy = NumpyStandIns()
        self._own = {'dtype': numpy.dtype, 'ndarray': numpy.ndarray, 'reconstruct': numpy.reconstruct, 'scalar': numpy.scalar,
                     '_frombuffer': numpy.frombuffer, 'encode': self._encode, 'path': self._path}

    def load_checked(self) -> Any:
        """`load`, and no array whose type was declared other than it is: its bytes would be taken for pointers."""
        with self._numpy.checked():
            return self.load()

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle names, if it is plain; `RefusedError` otherwise."""
        found = _PLAIN.get((module, name))
        if found is None:
            raise RefusedError(f'{module}.{name}')
        return self._own[found] if isinstance(found, str) else found

    def _encode(self, text: str, encoding: str) -> bytes:
        """How protocol 2 stores bytes; other codecs would be looked up among modules."""
        if encoding not in ('latin1', 'latin-1'):
            raise RefusedError(f'_codecs.encode to {encoding!r}')
        return text.encode('latin1')

    def _path(self, *parts: str) -> Path:
        return Path(*parts)


def _plain() -> dict[tuple[str, str], Any]:
    """What may be named: the thing itself, or the key of the method that stands in for it."""
    table: dict[tuple[str, str], Any] = {
        ('collections', 'OrderedDict'): collections.OrderedDict, ('collections', 'defaultdict'): collections.defaultdict,
        ('numpy', 'ndarray'): 'ndarray', ('numpy', 'dtype'): 'dtype', ('_codecs', 'encode'): 'encode'}
    for kind in (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, slice, str, tuple):
        for module in ('builtins', '__builtin__'):  # Python 3's name, and Python 2's, which protocol 2 writes
            table[module, kind.__name__] = kind
    for name in ('PosixPath', 'WindowsPath', 'PurePosixPath', 'PureWindowsPath'):
        table['pathlib', name] = 'path'
    for package in ('numpy.core', 'numpy._core'):  # numpy 1 and numpy 2
        table[f'{package}.multiarray', '_reconstruct'] = 'reconstruct'
        table[f'{package}.multiarray', 'scalar'] = 'scalar'
        table[f'{package}.numeric', '_frombuffer'] = '_frombuffer'
    return table


_PLAIN = _plain()
