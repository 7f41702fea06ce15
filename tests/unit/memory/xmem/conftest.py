"""Shared by the XMem tests: the full network with weights that can be rebuilt from names."""

import zlib

import pytest
import torch

from projects.memfusion.memory.xmem import XMem


def seed_weights(network, salt):
    """The weights of the published comparison: each tensor is drawn from its own name."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            g = torch.Generator().manual_seed(zlib.crc32(f'{salt}:{name}'.encode()))
            if name.endswith('num_batches_tracked'):
                continue
            if name.endswith('running_var'):
                value.copy_(torch.rand(value.shape, generator=g) * 0.5 + 0.75)
            elif name.endswith('running_mean'):
                value.copy_(torch.randn(value.shape, generator=g) * 0.05)
            elif value.dim() <= 1:
                norm_weight = ('bn' in name or 'downsample.1' in name) and name.endswith('weight')
                value.copy_(torch.rand(value.shape, generator=g) * 0.4 + 0.8 if norm_weight
                            else torch.randn(value.shape, generator=g) * 0.02)
            else:
                value.copy_(torch.randn(value.shape, generator=g) * (1.0 / value[0].numel()) ** 0.5)


@pytest.fixture(scope='session')
def network():
    """In eval mode. Leave its weights alone."""
    built = XMem().eval()
    seed_weights(built, 'dev')
    return built


@pytest.fixture(scope='session')
def seeded_clip():
    def make(seed, frames, height, width, objects):
        g = torch.Generator().manual_seed(seed)
        scene = torch.randn(3, height + 32, width + 32, generator=g)
        clip = [scene[:, t:t + height, 2 * t:2 * t + width].clone() for t in range(frames)]
        mask = torch.zeros(objects, height, width)
        for o in range(objects):
            mask[o, 8 + 20 * o:32 + 20 * o, 10 + 30 * o:38 + 30 * o] = 1
        return torch.stack(clip), mask

    return make
