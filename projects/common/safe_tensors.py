"""Common, below all stages. In: a file of torch.save. Out: its content, of types on a list only, in any torch.

torch's own `weights_only` loader has no list that one can add to before torch 2.4, and cannot be told a list for one file.
"""

from __future__ import annotations

import codecs
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch
from torch._weights_only_unpickler import _get_allowed_globals


def load_listed(path: str | Path, types: Iterable[Callable], map_location: Any = None, mmap: bool = False) -> Any:
    """The content of a file of torch.save that holds tensors, plain containers and the given types.

    Args:
        path: the file.
        types: what the file may name beside what torch's own safe loader knows; by their `__module__` and `__qualname__`.
        map_location, mmap: as torch.load's.

    Raises:
        pickle.UnpicklingError: naming what it would create or call beside these.
        Whatever torch.load raises for a file that is missing or damaged.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):  # torch.load would hand it to torch.jit
                raise pickle.UnpicklingError('Unsupported global: GLOBAL torch.jit.ScriptModule')
    return torch.load(path, map_location=map_location, weights_only=False, mmap=mmap or None, pickle_module=_module_of(types))


def _entry(kind: Any) -> tuple[str, Any]:
    """(name, thing): a type or function under its own name, or a (thing, name)."""
    return (kind[1], kind[0]) if isinstance(kind, tuple) else (f'{kind.__module__}.{kind.__qualname__}', kind)


def _module_of(types: Iterable[Callable]) -> Any:
    """What torch.load uses of the module pickle."""
    allowed = {**_get_allowed_globals(), **_PLAIN, **dict(map(_entry, types))}

    class Unpickler(_ListedUnpickler):
        table = allowed

    def load(file: IO[bytes], **options: Any) -> Any:
        return Unpickler(file, **options).load()

    return SimpleNamespace(__name__='safe_tensors', Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError)


_PurePython: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _ListedUnpickler(_PurePython):
    """Python's own, not C's: it can be told not to change classes and functions. The tensors' bytes do not go through it."""

    table: dict[str, Any]
    dispatch = dict(_PurePython.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """What is on the list under this name."""
        name = f'{_MODULE_OF.get(module, module)}.{name}'
        if name not in self.table:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {name}')
        return self.table[name]

    def load_build(self) -> None:
        """As pickle's, of instances only: it would set attributes of a class as well."""
        if callable(self.stack[-2]):
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.setattr of {self.stack[-2]!r}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def get_extension(self, code: int) -> None:
        """Numbers instead of names: nobody uses them."""
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL copyreg.extension {code}')


_MODULE_OF = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}  # Python 2's names, which protocol 2 writes
_PLAIN = {'builtins.set': set, 'builtins.bytearray': bytearray, '_codecs.encode': codecs.encode}  # older torch lacks them
