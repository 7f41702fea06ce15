"""Geometry, frame sampling: the registries. `dict(type='sa', num_frames=16)` is a sampler, `dict(type='sa')` a keeper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmengine.registry import Registry

if TYPE_CHECKING:
    from .keeping import FrameKeeper
    from .sampler import FrameSampler

FRAME_SAMPLERS = Registry('frame sampler')
"""Choose frames of a whole video."""
FRAME_KEEPERS = Registry('frame keeper')
"""Online forms, frame by frame, under the names of the samplers whose aim they share."""


def build_sampler(cfg: Mapping[str, Any]) -> FrameSampler:
    """The sampler of a config; ValueError for a name that is not registered, or settings that it does not take."""
    return _build(FRAME_SAMPLERS, cfg)


def build_keeper(cfg: Mapping[str, Any]) -> FrameKeeper:
    """The keeper of a config; ValueError for a name that is not registered, or settings that it does not take."""
    return _build(FRAME_KEEPERS, cfg)


def _build(registry: Registry, cfg: Mapping[str, Any]) -> Any:
    settings = dict(cfg)
    name = settings.pop('type', None)
    kind = registry.module_dict.get(name)
    if kind is None:
        raise ValueError(f'there is no {registry.name} {name!r}. Known: {", ".join(sorted(registry.module_dict))}')
    try:
        return kind(**settings)
    except TypeError as error:
        raise ValueError(f'{registry.name} {name!r}: {error}') from error
