"""Common. In: a registry, a config with a type. Out: the module. Our own types are built without mmcv's compiled ops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Registry(Protocol):
    """What is used of MMEngine's Registry."""

    @property
    def module_dict(self) -> dict[str, type]:
        """Name -> what is registered under it."""

    def build(self, cfg: dict[str, Any]) -> Any:
        """Looks the type up and calls it."""


def build_from(registry: Registry, cfg: Mapping[str, Any]) -> Any:
    """As `registry.build(cfg)`, but a type that is registered already is taken from the registry's table.

    `build` looks a name up only after it has imported all that the registry stands for, in mmdet3d's case all models and with
    them the compiled ops. A type that is not in the table is looked up so.
    """
    kind = cfg.get('type')
    known = registry.module_dict.get(kind) if isinstance(kind, str) else None
    return registry.build(dict(cfg) if known is None else {**cfg, 'type': known})
