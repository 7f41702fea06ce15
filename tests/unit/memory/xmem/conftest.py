"""Shared by the XMem tests: the full network with weights that can be rebuilt from names."""

import pytest
from replays import xmem


@pytest.fixture(scope='session')
def network():
    """In eval mode. Leave its weights alone."""
    built = xmem.build_network(key_dim=64, value_dim=512, hidden_dim=64)
    xmem.seed_weights(built, 'dev')
    return built


@pytest.fixture(scope='session')
def seeded_clip():
    return xmem.seeded_clip
