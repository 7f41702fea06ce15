"""What is registered already is built without importing all that a registry stands for."""

from __future__ import annotations

import pytest
from mmengine.registry import Registry

from projects.common.build import build_from


def test_only_unknown_types_are_looked_up():
    registry = Registry('parts', locations=['no_such_package'])
    registry.register_module('Part', module=dict)
    assert build_from(registry, dict(type='Part', size=3)) == dict(size=3)
    assert build_from(registry, dict(type=dict, size=3)) == dict(size=3)
    for build in (registry.build, lambda cfg: build_from(registry, cfg)):
        with pytest.raises(ModuleNotFoundError, match='no_such_package'):
            build(dict(type='Other'))
    with pytest.raises(KeyError, match='type'):
        build_from(registry, dict(size=3))
