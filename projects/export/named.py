"""Export. In: nested contracts (a state, what a read carries). Out: their tensors by name, and the contracts again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def named_tensors(value: Any, prefix: str) -> dict[str, Tensor]:
    """Every tensor that holds anything of a tensor, dataclass or mapping, by its path: `prefix_query_key`."""
    if isinstance(value, Tensor):
        return {prefix: value} if value.numel() else {}
    found: dict[str, Tensor] = {}
    for name, part in _parts(value).items():
        found |= named_tensors(part, f'{prefix}_{name}')
    return found


def with_tensors(value: Any, prefix: str, tensors: Mapping[str, Tensor]) -> Any:
    """`value` with the tensors that `named_tensors` names taken from `tensors`."""
    if isinstance(value, Tensor):
        return tensors[prefix] if value.numel() else value
    parts = {name: with_tensors(part, f'{prefix}_{name}', tensors) for name, part in _parts(value).items()}
    if not parts:
        return value
    return {**value, **parts} if isinstance(value, Mapping) else replace(value, **parts)


def _parts(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {field.name: getattr(value, field.name) for field in fields(value)} if is_dataclass(value) else {}
