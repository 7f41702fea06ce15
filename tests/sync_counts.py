"""Counts what would wait for a GPU. In: code that runs on any device. Out: how often, what, and on which line of ours.

    with counting() as counts:
        model.step(...)
    assert counts.total <= 12, counts

What waits: a value that Python asks for (`item`, `tolist`, `bool(tensor)`, `numpy`, `cpu`, ...), an operation whose result's
size or whose error depends on values (`nonzero`, indexing and writing by bool, `unique`, `linalg.inv`), and copies between
devices. On a CPU all tensors lie on one device: there `uploads` counts tensors made of Python's values, which a GPU gets by a
copy of its own.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

REPO = Path(__file__).resolve().parents[1]
OURS = f'{REPO / "projects"}/'
TORCH = f'{Path(torch.__file__).parent}/'
METHODS = ('item', 'tolist', 'numpy', 'cpu', '__bool__', '__int__', '__float__', '__index__', '__array__')
FACTORIES = ((torch, 'tensor'), (torch, 'as_tensor'), (Tensor, 'new_tensor'))
SIZED_BY_VALUES = ('nonzero', 'masked_select', 'masked_scatter', 'masked_scatter_', 'equal', 'allclose', '_unique', '_unique2',
                   'unique_dim', 'unique_consecutive', '_local_scalar_dense', 'is_nonzero', 'bincount', 'linalg_inv_ex')
BY_INDEX = ('index', '_unsafe_index', 'index_put', 'index_put_', '_index_put_impl_', '_unsafe_index_put')
CALLED_BY_INVERSES = 'linalg.inv'


class SyncCounts:
    """What was counted: (what, where) -> times.

    Attributes:
        waits: what waits for the device.
        uploads: tensors made of Python's values.
        apart: what waits below the functions given to `keep_apart`.
    """

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self.apart: Counter[tuple[str, str]] = Counter()
        self._inside = 0
        self._depth_apart = 0
        self._paused = True

    @property
    def total(self) -> int:
        """How often something waits, what is kept apart not counted."""
        return sum(self.waits.values())

    def __repr__(self) -> str:
        lines = [f'{sum(counter.values())} {name}:' + ''.join(f'\n  {times:3d} {what:20s} {where}' for (what, where), times in
                                                             sorted(counter.items(), key=lambda entry: entry[0][::-1]))
                 for name, counter in (('waits', self.waits), ('apart', self.apart), ('uploads', self.uploads)) if counter]
        return '\n'.join(lines) or '0 waits'

    def note(self, what: str, upload: bool = False) -> None:
        """Counts one event, unless it is a part of one that is counted already."""
        if not self._inside and not self._paused:
            counter = self.apart if self._depth_apart else self.uploads if upload else self.waits
            counter[what, where()] += 1

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """What happens in here is part of an event that was noted."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @contextmanager
    def keep_apart(self, owner: Any, *names: str) -> Iterator[None]:
        """Counts in `apart` what happens below these methods of one object."""
        def wrap(method: Callable) -> Callable:
            @functools.wraps(method)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                self._depth_apart += 1
                try:
                    return method(*args, **kwargs)
                finally:
                    self._depth_apart -= 1

            return wrapped

        with replaced(owner, {name: wrap(getattr(owner, name)) for name in names}):
            yield

    @contextmanager
    def only_in(self, owner: Any, name: str) -> Iterator[list[int]]:
        """Counts only below this method of one object -> for each of its calls how many waits."""
        method, calls = getattr(owner, name), []

        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, self._paused = self.total, False
            try:
                return method(*args, **kwargs)
            finally:
                self._paused = True
                calls.append(self.total - before)

        self._paused = True
        with replaced(owner, {name: wrapped}):
            yield calls


def where() -> str:
    """The innermost line of ours, or else the innermost one outside torch and this file."""
    frame, outside = sys._getframe(1), ''
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(OURS):
            return f'{name[len(OURS):]}:{frame.f_lineno} {frame.f_code.co_name}'
        if not outside and name != __file__ and not name.startswith((TORCH, '<')) and 'contextlib' not in name:
            outside = f'{Path(name).name}:{frame.f_lineno} {frame.f_code.co_name}'
        frame = frame.f_back
    return outside


@contextmanager
def replaced(owner: Any, attributes: dict[str, Any]) -> Iterator[None]:
    """Sets attributes of a class, a module or an object, and gives them back as they were."""
    own = {name: vars(owner)[name] for name in attributes if name in vars(owner)}
    for name, value in attributes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in attributes:
            if name in own:
                setattr(owner, name, own[name])
            else:
                delattr(owner, name)


class Watch(TorchDispatchMode):
    """Notes operations that wait."""

    def __init__(self, counts: SyncCounts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if waits(func.overloadpacket.__name__, args, kwargs or {}):
            self.counts.note(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def waits(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether this operation of ATen waits for the device."""
    if name in SIZED_BY_VALUES:
        return True
    if name in BY_INDEX:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == 'repeat_interleave':
        return kwargs.get('output_size') is None
    if name == '_linalg_check_errors':
        return not args[1].startswith(CALLED_BY_INVERSES)  # an inverse is counted by itself
    if name == '_to_copy':
        device = kwargs.get('device')
        return device is not None and torch.device(device).type != args[0].device.type and not kwargs.get('non_blocking')
    if name == 'copy_':
        blocks = not (args[2] if len(args) > 2 else kwargs.get('non_blocking', False))
        return blocks and args[0].device.type != args[1].device.type
    return False


@contextmanager
def counting() -> Iterator[SyncCounts]:
    """Counts what happens inside, in this thread."""
    counts = SyncCounts()

    def asked(name: str, method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            counts.note(name)
            with counts.as_one():
                return method(*args, **kwargs)

        return wrapped

    def made(name: str, method: Callable) -> Callable:
        @functools.wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            on_device = name == 'new_tensor' or kwargs.get('device') is not None
            if on_device and not isinstance(args[0 if name != 'new_tensor' else 1], Tensor):
                counts.note(name, upload=True)
            return method(*args, **kwargs)  # Python's values may hold tensors, which are asked here

        return wrapped

    with ExitStack() as stack:
        stack.enter_context(replaced(Tensor, {name: asked(name, getattr(Tensor, name)) for name in METHODS}))
        for owner, name in FACTORIES:
            stack.enter_context(replaced(owner, {name: made(name, getattr(owner, name))}))
        stack.enter_context(Watch(counts))
        counts._paused = False
        yield counts
