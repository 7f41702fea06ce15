"""Common, below all stages. In: what a pickle asks of numpy. Out: arrays, types and scalars of plain data, or a refusal."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

_DTYPE_CODE = re.compile(r'[biufcSUMm]\d*')
"""Numbers, text and times. Not O: its bytes are pointers, and the file would say where to. Not V: never needed."""
_SCALAR: Any = np.float64(0).__reduce__()[0]


class RefusedError(Exception):
    """The dotted name of what was refused; no UnpicklingError, so that nothing takes it for a damaged file."""


class NumpyStandIns:
    """What readers hand out for numpy's names: its own bound methods, which a pickle cannot change."""

    def __init__(self) -> None:
        self._dtypes: list[np.dtype] = []

    def dtype(self, code: Any, align: bool = False, copy: bool = False) -> np.dtype:
        """Stands for numpy.dtype: numbers, text and times, always a copy, as the pickle then sets its state."""
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise RefusedError(f'numpy.dtype of {code!r}')
        self._dtypes.append(np.dtype(code, False, True))  # type: ignore[call-overload]
        return self._dtypes[-1]

    def ndarray(self, *args: Any) -> Any:
        """Stands for the class, which a pickle names but has no need to call: it takes raw bytes for pointers."""
        raise RefusedError('numpy.ndarray')

    def reconstruct(self, kind: Any, shape: Any, code: Any) -> np.ndarray:
        """An empty array, which the pickle then fills."""
        return np.empty(0, dtype='i1')

    def scalar(self, dtype: Any, data: Any = b'') -> Any:
        """A scalar of a type that is what it says."""
        check_plain(dtype)
        return _SCALAR(dtype, data)

    def frombuffer(self, buffer: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
        """How protocol 5 stores arrays."""
        check_plain(dtype)
        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order='F' if order == 'F' else 'C')

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Around a reading: `RefusedError` at its end where a type that was handed out has become another."""
        self._dtypes.clear()
        yield
        for dtype in self._dtypes:
            check_plain(dtype)


def check_plain(dtype: Any) -> None:
    """Refuses a numpy type that was declared other than it is: raw bytes would be taken for pointers, or for parts."""
    if not isinstance(dtype, np.dtype) or not _DTYPE_CODE.fullmatch(dtype.str[1:].split('[')[0]):
        raise RefusedError(f'numpy.dtype of {dtype!r}')
    if dtype.fields is not None or dtype.subdtype is not None or dtype.flags != np.dtype(dtype.str).flags:
        raise RefusedError('numpy.dtype with false flags')
