"""Geometry, frame sampling: the registry of samplers. `dict(type='sa', num_frames=16)` is a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmengine.registry import Registry

if TYPE_CHECKING:
    from .sampler import FrameSampler

FRAME_SAMPLERS = Registry('frame sampler')


def build_sampler(cfg: Mapping[str, Any]) -> FrameSampler:
    """The sampler of a config.

    Raises:
        ValueError: for a name that is not registered, or settings that the sampler does not take.
    """
    settings = dict(cfg)
    name = settings.pop('type', None)
    kind = FRAME_SAMPLERS.module_dict.get(name)
    if kind is None:
        raise ValueError(f'there is no frame sampler {name!r}. Known: {", ".join(sorted(FRAME_SAMPLERS.module_dict))}')
    try:
        return kind(**settings)
    except TypeError as error:
        raise ValueError(f'frame sampler {name!r}: {error}') from error
