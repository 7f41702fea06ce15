"""CopyGRU: written out with random weights; before training a map of what was last seen, which starts as the plain detector."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.geometry import warp_bev

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)


def seen(seed):
    return torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(100 + seed)) < 0.5


@torch.no_grad()
def test_it_is_the_recurrence_written_out(build, bev, frame, pose, play):
    module = build('CopyGRU', hidden_dim=2)
    poses = [pose(x=500 + 0.7 * t, y=-20 + 0.2 * t, yaw=0.9 + 0.1 * t) for t in range(4)]
    readouts, memory = play(module, [bev(t) for t in range(4)], [frame(t, p) for t, p in enumerate(poses)],
                            observed=[seen(t) for t in range(4)])
    hidden, share = torch.zeros(1, 2, 8, 12), torch.zeros(1, 1, 8, 12)
    for t, readout in enumerate(readouts):
        if t:
            cur_from_then = torch.from_numpy(np.linalg.inv(poses[t]) @ poses[t - 1])[None]
            hidden, share = (warp_bev(one, cur_from_then, RANGE) for one in (hidden, share))
        now, weight, mean = seen(t).float(), module.reduce.weight, module.reduce.mean.view(1, -1, 1, 1)
        value = torch.einsum('vc,bchw->bvhw', weight, bev(t) - mean)
        opened = torch.sigmoid(F.conv2d(torch.cat([bev(t), now], 1), module.gate.weight, module.gate.bias, padding=1))
        back = torch.einsum('vc,bvhw->bchw', weight, hidden) + share * mean
        copied = opened * (back - share * bev(t))
        gates = torch.sigmoid(F.conv2d(torch.cat([value, hidden, now, share], 1), module.gates.weight, module.gates.bias,
                                       padding=1))
        z, r = gates[:, :1], gates[:, 1:]
        new = now * value + F.conv2d(torch.cat([value, r * hidden, now, share], 1), module.candidate.weight,
                                     module.candidate.bias, padding=1)
        hidden, share = (1 - z) * hidden + z * new, (1 - z) * share + z * now
        expected = bev(t) + copied + F.conv2d(hidden, module.proj.weight, module.proj.bias, padding=1)
        assert (readout.bev - expected).abs().max() < 1e-5
    assert (memory.hidden - torch.cat([hidden, share], 1)).abs().max() < 1e-5


@torch.no_grad()
def test_before_training_it_keeps_what_was_seen_last_and_moves_with_the_ego(build, bev, frame, pose, play):
    module = build('CopyGRU', hidden_dim=3, random_weights=False)  # three values of three channels lose nothing
    everything, nothing = torch.ones(1, 1, 8, 12, dtype=torch.bool), torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    steps = [frame(t, pose(x=3.0 * t)) for t in range(3)]  # 3 m a step, three cells
    readouts, _ = play(module, [bev(t) for t in range(3)], steps, observed=[everything, nothing, nothing])
    assert torch.equal(readouts[0].bev, bev(0))  # a scene begins as the plain detector
    for t, shift in ((1, 3), (2, 6)):
        opened = torch.sigmoid(torch.tensor(2.0))
        expected = bev(t).clone()
        expected[..., :-shift] += opened * (bev(0)[..., shift:] - bev(t)[..., :-shift])
        assert (readouts[t].bev - expected)[..., :-shift].abs().max() < 0.1  # an update lets 0.7 % of a cell go
        assert (readouts[t].bev - bev(t))[..., -shift:].abs().max() < 1e-6  # what was never seen is not made up


def test_a_model_without_lidar_is_refused(build, bev, frame, pose, play):
    with pytest.raises(ValueError, match='temporal=CopyGRU needs to know which cells hold points'):
        play(build('CopyGRU', hidden_dim=2), [bev(0)], [frame(0, pose())])
