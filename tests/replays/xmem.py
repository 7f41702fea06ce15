"""Replays XMem: names and shapes of its checkpoint, and what its inference makes of a clip.

Weights and frames are drawn anew from their names and a seed, so that a file holds results only. The conventions are in
tests/reference/README.md.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path

import torch
from mmdet3d.registry import MODELS
from replays.compare import difference, read_arrays, read_settings

import projects.memfusion.memory  # noqa: F401 - registers the network
from projects.common.build import build_from
from projects.memfusion.memory.xmem import ClipSegmenter, InferenceSettings, XMem

INFERENCE = {field.name: field.default for field in fields(InferenceSettings)}
PUBLISHED = {**INFERENCE, 'mem_every': 2, 'enable_long_term': False, 'salt': 'dev', 'seed': 11, 'key_dim': 64, 'value_dim': 512}
"""What a file without `settings` was made with."""
PROB_TOLERANCE = 1e-4
HIDDEN_TOLERANCE = 3e-4
"""The sensory state, up to 1, has passed more layers and is fed back: its rounding is about three times as large."""


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    return replay_names(path) if path.suffix == '.json' else replay_clip(path, device)


def build_network(key_dim: int, value_dim: int, hidden_dim: int) -> XMem:
    """The network that the `image` memory of the configs holds, in eval mode."""
    memory = build_from(MODELS, dict(type='ImageMemoryNetwork', in_channels=3, bev_shape=(16, 16), key_dim=key_dim,
                                     value_dim=value_dim, hidden_dim=hidden_dim))
    return memory.xmem.eval()


def replay_names(path: Path) -> list[tuple[str, float]]:
    """Every name with its shape, in the published order; each must be equal."""
    published = json.loads(path.read_text())
    if not isinstance(published, dict) or not all(isinstance(shape, list) for shape in published.values()):
        raise ValueError('it must hold a JSON object: names, each with its shape as a list')
    key_dim, value_dim, gates = ((published.get(name) or [published_size])[0] for name, published_size in (
        ('key_proj.key_proj.weight', 64), ('value_encoder.fuser.block2.conv2.weight', 512),
        ('value_encoder.hidden_reinforce.transform.weight', 3 * 64)))
    network = build_network(key_dim, value_dim, gates // 3)
    own = [(name, list(value.shape)) for name, value in network.state_dict().items()]
    return [(ours[0] if theirs is None else theirs[0], 0.0 if ours == theirs else float('inf'))
            for ours, theirs in zip_longest(own, published.items())]


@torch.no_grad()
def replay_clip(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """Probabilities of every frame, the last sensory state, and the memory's sizes; shapes say how large the clip is."""
    arrays = read_arrays(path, required=('prob', 'hidden', 'sizes'), optional=('settings',))
    settings = read_settings(arrays, PUBLISHED)
    if arrays['prob'].ndim != 4 or arrays['hidden'].ndim != 5:
        raise ValueError('prob must be (frames, 1 + objects, height, width) and hidden (1, objects, channels, h, w), got '
                         f'{arrays["prob"].shape} and {arrays["hidden"].shape}')
    frames, objects, height, width = arrays['prob'].shape
    network = build_network(settings['key_dim'], settings['value_dim'], arrays['hidden'].shape[2])
    seed_weights(network, settings['salt'])
    network.to(device)
    clip, mask = seeded_clip(settings['seed'], frames, height, width, objects - 1)
    segmenter = ClipSegmenter(network, InferenceSettings(**{name: settings[name] for name in INFERENCE}), num_frames=frames)
    prob, sizes = [], []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for frame in clip:
            prob.append(segmenter.step(frame, None if prob else mask))
            sizes.append(segmenter.memory_sizes)
    return [
        ('prob', difference(torch.stack(prob).cpu().numpy(), arrays['prob'], PROB_TOLERANCE)),
        ('hidden', difference(segmenter.sensory.cpu().numpy(), arrays['hidden'], HIDDEN_TOLERANCE)),
        ('sizes', difference(sizes, arrays['sizes'])),
    ]


def seed_weights(network: torch.nn.Module, salt: str) -> None:
    """Draws each tensor of the state dict from its own name."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            g = torch.Generator().manual_seed(zlib.crc32(f'{salt}:{name}'.encode()))
            if name.endswith('num_batches_tracked'):
                value.zero_()
            elif name.endswith('running_var'):
                value.copy_(torch.rand(value.shape, generator=g) * 0.5 + 0.75)
            elif name.endswith('running_mean'):
                value.copy_(torch.randn(value.shape, generator=g) * 0.05)
            elif value.dim() <= 1:
                norm_weight = ('bn' in name or 'downsample.1' in name) and name.endswith('weight')
                value.copy_(torch.rand(value.shape, generator=g) * 0.4 + 0.8 if norm_weight
                            else torch.randn(value.shape, generator=g) * 0.02)
            else:
                value.copy_(torch.randn(value.shape, generator=g) * (1.0 / value[0].numel()) ** 0.5)


def seeded_clip(seed: int, frames: int, height: int, width: int, objects: int) -> tuple[torch.Tensor, torch.Tensor]:
    """-> (T, 3, H, W) windows that slide over one random scene, and (K, H, W) rectangles of the first frame."""
    g = torch.Generator().manual_seed(seed)
    scene = torch.randn(3, height + 32, width + 32, generator=g)
    clip = [scene[:, t:t + height, 2 * t:2 * t + width] for t in range(frames)]
    mask = torch.zeros(objects, height, width)
    for o in range(objects):
        mask[o, 8 + 20 * o:32 + 20 * o, 10 + 30 * o:38 + 30 * o] = 1
    return torch.stack(clip), mask
