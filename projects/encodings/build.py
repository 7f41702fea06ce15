"""Encodings. In: a config with a type. Out: the encoding.

A plain table, since this package needs nothing but torch; a registry would bring a second package in for a dozen fixed names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .alibi import PoseALiBi
from .bound import Encoding, NoEncoding
from .frustum_encoding import FrustumPE
from .pose_encoding import PoseEncoding
from .rotary import Rotary

_FIELDS = dict(pairs='adjacent', ladder='octaves', mix='alternate', unit=True, scale=-1.0)
ENCODINGS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    'none': (NoEncoding, {}),
    'PRoPE': (PoseEncoding, dict(layout='P1/2 W1/4 H1/4', intrinsics=True, values=True)),
    'GTA': (PoseEncoding, dict(layout='P1/2 HW1/2', values=True, trans_norm='learned', trans_scale=0.01, rotary=_FIELDS)),
    'CaPE6': (PoseEncoding, dict(layout='P1/1')),
    'RoPE-HW': (PoseEncoding, dict(layout='HW1/1', rotary=dict(base=10000.0))),
    'RoPE-THW': (PoseEncoding, dict(layout='THW1/1', rotary=dict(base=10000.0))),
    'HW+P': (PoseEncoding, dict(layout='P1/2 H1/4 W1/4')),
    'THW+P': (PoseEncoding, dict(layout='P1/4 T1/4 H1/4 W1/4')),
    'VO-RoPE': (PoseEncoding, dict(layout='HW1/1', values=True, rotary=dict(base=10000.0))),
    'FrustumPE': (FrustumPE, {}),
    'PoseALiBi': (PoseALiBi, {}),
}
"""Name -> what is built, and its settings unless the config says otherwise."""


def build_encoding(cfg: Mapping[str, Any], layer: int = 0) -> Encoding:
    """The encoding of a config.

    Args:
        cfg: `type`, a name of ENCODINGS, and settings of what it builds. `layout_schedule`, a list of layouts, gives each layer
            the next, from the first again after the last. Settings in `rotary` are added to those of the type.
        layer: which layer's.

    Raises:
        ValueError: for a type or a setting that there is not.
    """
    settings = dict(cfg)
    kind = settings.pop('type', None)
    if kind not in ENCODINGS:
        raise ValueError(f'encoding.type must be one of {", ".join(ENCODINGS)}, got {kind!r}')
    make, defaults = ENCODINGS[kind]
    schedule = settings.pop('layout_schedule', None)
    if schedule is not None:
        if 'layout' in settings or not schedule:
            raise ValueError('encoding.layout_schedule must be a list of layouts, and takes the place of encoding.layout')
        settings['layout'] = schedule[layer % len(schedule)]
    if 'rotary' in defaults or 'rotary' in settings:
        settings['rotary'] = {**defaults.get('rotary', {}), **(settings.get('rotary') or {})}
        _check_names(settings['rotary'], Rotary, 'encoding.rotary')
    settings = {**defaults, **settings}
    _check_names(settings, make, f'encoding of type {kind}')
    return make(**settings)


def _check_names(settings: Mapping[str, Any], make: Callable[..., Any], what: str) -> None:
    known = {name: one for name, one in inspect.signature(make).parameters.items() if one.kind == one.POSITIONAL_OR_KEYWORD}
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f'{what} has no settings {unknown}; it has {", ".join(known) or "none"}')
    if lacking := [name for name, one in known.items() if one.default is one.empty and name not in settings]:
        raise ValueError(f'{what} needs {", ".join(lacking)}')
