"""`network` and `loader` alignment agree on a world that stands still, away from the borders.

Two streams of BEV maps made by hand show the same world: each frame in its own grid with its pose, and each frame already moved
into the last one's grid. Cells that are nearer to a border of what was seen than the receptive fields reach differ: what lies
beyond it is zero in one grid and was never in the other.
"""

import math

import numpy as np
import pytest
import torch

HALF = 64.0
RANGE = (-HALF, -HALF, -5.0, HALF, HALF, 3.0)
CELLS = 128  # of 1 m
INNER = slice(44, 84)


def world(x, y, detail):
    """A smooth world: three channels at global metres (..., ) -> (3, ...); `detail` in radians per metre."""
    g = torch.Generator().manual_seed(0)
    waves = torch.randn(3, 12, 2, generator=g, dtype=torch.float64) * detail
    phase = 6.28 * torch.rand(3, 12, 1, 1, generator=g, dtype=torch.float64)
    return torch.sin(waves[..., 0, None, None] * x + waves[..., 1, None, None] * y + phase).sum(1).float()


def seen(global_from_grid, global_from_sensor=None, detail=0.35):
    """(1, 3, H, W) of the world in one grid; where a sensor is given, only what lies in the sensor's own range."""
    axis = torch.arange(CELLS, dtype=torch.float64) + 0.5 - HALF
    y, x = torch.meshgrid(axis, axis, indexing='ij')
    points = torch.stack([x, y, torch.zeros_like(x), torch.ones_like(x)], dim=-1) @ torch.from_numpy(global_from_grid).T
    maps = world(points[..., 0] - 1000, points[..., 1] + 500, detail)
    if global_from_sensor is not None:
        own = points @ torch.from_numpy(np.linalg.inv(global_from_sensor)).T
        maps = maps * (own[..., :2].abs() <= HALF).all(-1)
    return maps[None]


def streams(poses, frame, detail=0.35):
    """((maps, frames) of network alignment, (maps, frames) of loader alignment)."""
    last = poses[-1]
    own = [seen(p, detail=detail) for p in poses], [frame(t, p) for t, p in enumerate(poses)]
    moved = ([seen(last, p, detail) for p in poses],
             [frame(t, p, aug=np.linalg.inv(last) @ p) for t, p in enumerate(poses)])
    return own, moved


def both(module, poses, frame, play, detail=0.35):
    answers = []
    for align, (maps, steps) in zip(('network', 'loader'), streams(poses, frame, detail)):
        module.alignment = align
        answers.append(play(module, maps, steps)[0][-1])
    return answers


MEMORIES = {
    'residual': dict(kind='TemporalMemory', readout='ResidualReadout', max_mem_frames=3),
    'gate': dict(kind='TemporalMemory', readout='GateReadout', ego_channels=False, motion_gate=dict(cues=['difference'])),
    'long-term': dict(kind='TemporalMemory', readout='ConcatReadout', max_mem_frames=2,
                      long_term=dict(min_mem_frames=1, num_prototypes=4096, max_elements=4096)),
    'gru': dict(kind='ConvGRUFusion'), 'stack': dict(kind='StackFusion'),
}


def localised(build, kind, **settings):
    module = build(kind, point_cloud_range=RANGE, **settings)
    if kind == 'TemporalMemory':
        module.log_locality.data.fill_(3.0)  # a cell looks near itself, not at the border of the map
    return module


@pytest.mark.parametrize('name', MEMORIES)
def test_steps_of_whole_cells_agree(name, build, frame, pose, play):
    settings = dict(MEMORIES[name])
    module = localised(build, settings.pop('kind'), **settings)
    poses = [pose(x=1000 + 2.0 * t, y=-500 - 4.0 * t) for t in range(3)]  # memory cells of 2 m
    network, loader = both(module, poses, frame, play)
    plain = seen(poses[-1])
    assert (network.bev - plain)[..., INNER, INNER].abs().max() > 0.1  # memory has a say
    # positions of 1000 m in the network, none in the loader: up to 2e-5, depending on the kernels
    assert (network.bev - loader.bev)[..., INNER, INNER].abs().max() < 3e-4
    module.alignment = 'none'
    blind = play(module, *streams(poses, frame)[0])[0][-1]
    assert (blind.bev - loader.bev)[..., INNER, INNER].abs().max() > 1e-2  # and it is the alignment that makes them agree


def test_a_quarter_turn_agrees_for_stored_maps(build, frame, pose, play):
    """A turn that keeps cell centres: StackFusion reduces each cell by itself, so the moved maps are exact."""
    module = localised(build, 'StackFusion')
    poses = [pose(x=1000, y=-500, yaw=0.3), pose(x=1000, y=-500, yaw=0.3 + math.pi / 2)]
    network, loader = both(module, poses, frame, play)
    assert (network.bev - loader.bev)[..., INNER, INNER].abs().max() < 1e-4


@pytest.mark.parametrize('name', ['residual', 'gate', 'long-term'])
def test_occupancy_agrees_for_general_motion(name, build, frame, pose, play):
    """Steps that are no whole cells, and turns, in a world whose details the memory grid resolves."""
    settings = dict(MEMORIES[name])
    module = localised(build, settings.pop('kind'), **settings)
    poses = [pose(x=1000 + 2.7 * t, y=-500 - 1.3 * t, yaw=0.4 + 0.02 * t) for t in range(3)]
    network, loader = (one.aux['occ_logits'][..., 22:42, 22:42] for one in both(module, poses, frame, play, detail=0.04))
    level = loader.median()
    agreement = intersection_over_union(network > level, loader > level)
    assert agreement >= 0.9
    module.alignment = 'none'
    blind = play(module, *streams(poses, frame, detail=0.04)[0])[0][-1].aux['occ_logits'][..., 22:42, 22:42]
    assert intersection_over_union(blind > level, loader > level) < agreement - 0.03


def intersection_over_union(a, b):
    return float((a & b).sum() / (a | b).sum())


def test_ego_channels_say_the_same_in_both(build, frame, pose, play):
    """The velocity is given in the axes of the grid, which in loader alignment is the last frame's."""
    module = localised(build, 'TemporalMemory', ego_channels=True)
    poses = [pose(x=1000 + 2.0 * t, y=-500) for t in range(3)]
    network, loader = both(module, poses, frame, play)
    assert (network.bev - loader.bev)[..., INNER, INNER].abs().max() < 1e-4
