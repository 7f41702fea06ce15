"""Geometry and memory similarity compute in what they are given. In: a function of tensors. Out: the same, never rounded.

Pixels, positions and similarities are differences of large numbers: half precision, and the 10 or 7 bits that TF32 or
bfloat16 leave of a float32 in matrix products and convolutions, are off by pixels and cells.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

Function = TypeVar('Function', bound=Callable[..., Any])


def full_precision(function: Function) -> Function:
    """Decorator: autocast is off in `function`, and so is TF32 (on a CPU bfloat16) in its products, forward and backward.

    The user's settings are back after the call, after each step of the backward pass, and after an error in either. Calls
    nest; the outermost counts. The settings are the process's: another thread computes in full precision meanwhile.

    Not covered: gradients of gradients; a tensor that leaves `function` in another way than in what it returns.

    Raises:
        TypeError: where the function returns something whose tensors cannot be found: it may return tensors, None, numbers,
            and tuples, lists, dicts and dataclasses of these.
    """
    @functools.wraps(function)
    def precise(*args: Any, **kwargs: Any) -> Any:
        if getattr(_thread, 'inside', False):
            return function(*args, **kwargs)
        first = torch._C._autograd._get_sequence_nr()  # every step recorded from here on has this number or a higher one
        _thread.inside = True
        _SWITCH.off()
        try:
            with _without_autocast():
                result = function(*args, **kwargs)
        finally:
            _SWITCH.back()
            _thread.inside = False
        if torch.is_grad_enabled():
            _protect_backward(result, first)
        return result

    return precise  # type: ignore[return-value]


_thread = threading.local()


# -- settings ---------------------------------------------------------------------------------------------------------
class _Switch:
    """Turns the reduced precisions off, and back when everyone who turned them off is done, in whatever order."""

    def __init__(self) -> None:
        self.lock, self._users = threading.RLock(), 0
        self._restore: Callable[[], None] = lambda: None

    def off(self) -> None:
        with self.lock:
            if self._users == 0:
                self._restore = _turn_off() if _HAS_PRECISION_PER_OPERATION else _turn_off_legacy()
            self._users += 1

    def back(self, times: int = 1) -> None:
        with self.lock:
            self._users -= times
            if times and self._users == 0:
                self._restore()


_SWITCH = _Switch()
_HAS_PRECISION_PER_OPERATION = hasattr(torch._C, '_get_fp32_precision_getter')  # torch 2.9
_OPERATIONS = tuple((backend, name) for backend in ('cuda', 'mkldnn') for name in ('matmul', 'conv', 'rnn'))
_CUDNN = (('cuda', 'conv'), ('cuda', 'rnn'))


def _turn_off_legacy() -> Callable[[], None]:
    """As _turn_off, for torch that has only the old switches."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch._C._get_cudnn_allow_tf32()
    torch.set_float32_matmul_precision('highest')
    torch._C._set_cudnn_allow_tf32(False)

    def restore() -> None:
        torch.set_float32_matmul_precision(matmul)
        torch._C._set_cudnn_allow_tf32(cudnn)

    return restore


def _turn_off() -> Callable[[], None]:
    """Turns TF32 and bfloat16 off in float32 products; what it returns puts everything back.

    torch keeps the old switches beside the newer setting per operation, and refuses to tell the old ones while the two
    contradict each other. Both are turned off, so that both can be read inside; a contradiction of the user's own is put back
    as it was. One thing cannot be put back: cuDNN's TF32, as long as nobody has set anything, follows what is set for all
    operations later; from then on only what is set for torch.backends.cudnn.
    """
    get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    value = {operation: get(*operation) for operation in _OPERATIONS}
    reduced = [operation for operation in _OPERATIONS if value[operation] not in ('none', 'ieee')]
    own = {operation: _own_precision(*operation) for operation in _OPERATIONS
           if operation in reduced or operation[1] == 'matmul'}
    old_cudnn = all(value[operation] == 'tf32' for operation in _CUDNN) and _old_cudnn_switch()
    for operation in reduced:
        put(*operation, 'ieee')
    old_matmul = torch.get_float32_matmul_precision()  # can always be read now
    if old_matmul != 'highest':
        torch.set_float32_matmul_precision('highest')
    if old_cudnn:
        torch._C._set_cudnn_allow_tf32(False)
        for operation in _CUDNN:  # the old switch leaves them to what is set for all operations
            put(*operation, 'ieee')

    def restore() -> None:
        if old_matmul != 'highest':
            torch.set_float32_matmul_precision(old_matmul)
        if old_cudnn:
            torch._C._set_cudnn_allow_tf32(True)
        for operation, precision in own.items():
            put(*operation, precision)

    return restore


def _own_precision(backend: str, operation: str) -> str:
    """The setting of an operation itself, 'none' where it follows that of the backend or of all: torch tells only the sum."""
    get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    value = get(backend, operation)
    parent = ('generic', 'all') if operation == 'all' else (backend, 'all')
    if value == 'none' or get(*parent) != value:
        return value
    kept = value if operation == 'all' else _own_precision(*parent)
    put(*parent, 'tf32' if value == 'ieee' else 'ieee')
    follows = get(backend, operation) != value
    put(*parent, kept)
    return 'none' if follows else value


def _old_cudnn_switch() -> bool:
    """torch.backends.cudnn.allow_tf32, where cuDNN's operations all use TF32; False where the user contradicts that."""
    try:
        return torch._C._get_cudnn_allow_tf32()
    except RuntimeError:
        return False


def _without_autocast() -> AbstractContextManager:
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4
        active = [device for device in ('cpu', 'cuda') if torch.is_autocast_enabled(device)]
    else:
        active = ['cuda'] * torch.is_autocast_enabled() + ['cpu'] * torch.is_autocast_cpu_enabled()
    stack = ExitStack()
    for device in active:
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack


# -- backward ---------------------------------------------------------------------------------------------------------
class _BackwardPass:
    """What one backward pass has turned off. The engine alone holds it, so that it also ends with a pass that fails."""

    def __init__(self) -> None:
        self._open = 0

    def off(self) -> None:
        with _SWITCH.lock:  # the steps of several devices run at the same time
            self._open += 1
            _SWITCH.off()

    def back(self) -> None:
        with _SWITCH.lock:
            self._open -= 1
            _SWITCH.back()

    def finished(self) -> None:
        """Called by the engine after a pass without errors, when nothing is open."""

    def __del__(self) -> None:
        _SWITCH.back(self._open)


_passes: WeakValueDictionary[int, _BackwardPass] = WeakValueDictionary()
_WITHOUT_PRODUCTS = frozenset(f'{name}Backward' for name in (
    'Add Addcmul Alias Amax Cat Clamp ClampMin Clone ConstantPadNd Div Exp Expand Gather Index Log MaskedFill Maximum Mean '
    'Minimum Mul Neg Permute Pow Relu ReshapeAlias Select Sigmoid Slice Softmax Split SplitWithSizes Sqrt Squeeze Stack '
    'Sub Sum T Tanh Threshold ToCopy Transpose Unbind UnsafeView Unsqueeze View Where').split())
"""Steps that rearrange, add up or multiply number by number: no setting changes them, and hooks cost more than they do."""


def _protect_backward(result: Any, first: int) -> None:
    """Hooks the steps recorded since number `first` that lead to the result: they run in full precision."""
    todo = [tensor.grad_fn for tensor in _tensors(result) if tensor.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        name = node.name()
        if node._sequence_nr() < first or name == 'torch::autograd::AccumulateGrad':
            continue
        of_torch = name[-1].isdigit()  # a Function of one's own may have the same name, without a number
        if not (of_torch and name.rstrip('0123456789') in _WITHOUT_PRODUCTS):
            node.register_prehook(_before_step)
            node.register_hook(_after_step)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                todo.append(parent)


def _before_step(gradients: tuple[Tensor, ...]) -> None:
    del gradients
    task = torch._C._current_graph_task_id()
    current = _passes.get(task)
    if current is None:
        current = _passes[task] = _BackwardPass()
        torch.autograd.Variable._execution_engine.queue_callback(current.finished)
    current.off()


def _after_step(gradients: tuple[Tensor, ...], outer: tuple[Tensor, ...]) -> None:
    del gradients, outer
    _passes[torch._C._current_graph_task_id()].back()


def _tensors(result: Any) -> Iterator[Tensor]:
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list, dict)):
        for part in result.values() if isinstance(result, dict) else result:
            yield from _tensors(part)
    elif is_dataclass(result):
        for field in fields(result):
            yield from _tensors(getattr(result, field.name))
    elif result is not None and not isinstance(result, (bool, int, float, str)):
        raise TypeError(f'full_precision: cannot look for tensors in a {type(result).__name__}; return tensors, or tuples, '
                        'lists, dicts or dataclasses of them')
