"""Ego channels and motion gate: hand-made numbers, and what moves and what stands still."""

import numpy as np
import pytest
import torch

from projects.memfusion.memory.motion import MotionGate, append_ego_channels, ego_values
from projects.memfusion.structures import SceneFeatures


def test_ego_values_by_hand(build, bev, frame, pose, play):
    module = build()
    _, memory = play(module, [bev(0)], [frame(0, pose(x=100.0, y=200.0), gap_s=0.5)])
    values = ego_values(memory, frame(1, pose(x=103.0, y=204.0), gap_s=0.5))
    assert values[0].tolist() == pytest.approx([6.0, 8.0, 0.0, 0.5], abs=1e-6)  # 3 m and 4 m in half a second
    turned = ego_values(memory, frame(1, pose(x=100.0, y=200.0, yaw=0.2), gap_s=0.5))
    assert turned[0].tolist() == pytest.approx([0.0, 0.0, 0.4, 0.5], abs=1e-6)
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    mirrored = ego_values(memory, frame(1, pose(x=103.0, y=204.0, yaw=0.0), gap_s=0.5, aug=mirror))
    assert mirrored[0].tolist() == pytest.approx([6.0, -8.0, 0.0, 0.5], abs=1e-6)


def test_ego_values_are_zero_without_history(build, bev, frame, pose, play):
    module = build()
    start = frame(0, [pose(x=100.0), pose(x=7.0)])
    assert ego_values(module.init_state(SceneFeatures(bev(0, batch=2))), start).abs().max() == 0
    _, memory = play(module, [bev(0, batch=2)], [start])
    second = frame(1, [pose(x=101.0), pose(x=9.0)], starts=[True, False])
    values = ego_values(module.align(memory, second), second)
    assert values[0].abs().max() == 0 and values[1].tolist() == pytest.approx([4.0, 0.0, 0.0, 0.5])


def test_padding_that_repeats_a_stamp_gives_finite_values(build, bev, frame, pose, play):
    module = build()
    _, memory = play(module, [bev(0)], [frame(0, pose())])
    assert torch.isfinite(ego_values(memory, frame(0, pose(x=1.0), starts=[False], valid=False))).all()


def test_channels_are_scaled_and_spread():
    out = append_ego_channels(torch.zeros(1, 3, 2, 2), torch.tensor([[5.0, -10.0, 0.25, 0.5]]))
    assert out.shape == (1, 7, 2, 2)
    assert out[0, 3:, 1, 0].tolist() == pytest.approx([0.5, -1.0, 0.5, 1.0])
    assert (out[0, 3:, 0, 1] == out[0, 3:, 1, 0]).all()


def test_ego_channels_reach_the_memory_and_the_stored_keys(build, bev, frame, pose, play):
    module = build(ego_channels=True, align='none', key_position=False)
    ends = [play(module, [bev(0), bev(1)], [frame(0, pose()), frame(1, pose(x=speed))]) for speed in (0.0, 5.0)]
    assert (ends[0][0][1].bev - ends[1][0][1].bev).abs().max() > 1e-3
    assert (ends[0][1].key[:, -1] - ends[1][1].key[:, -1]).abs().max() > 1e-3
    assert torch.equal(ends[0][1].key[:, -2], ends[1][1].key[:, -2])  # the first frame has no history: no speed
    plain = build(align='none', key_position=False)
    same = [play(plain, [bev(0), bev(1)], [frame(0, pose()), frame(1, pose(x=speed))])[0][1].bev for speed in (0.0, 5.0)]
    assert torch.equal(*same)  # without the channels, and without alignment, nobody sees the motion


# -- motion gate ----------------------------------------------------------------------------------------------------
def opened(gate):
    """A gate whose numbers can be followed: factor = sigmoid(3 - 2 * mean of the first cue)."""
    for layer in (gate.net[0], gate.net[2]):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    gate.net[0].weight.data[0, 0, 1, 1] = 1.0
    gate.net[2].weight.data[0, 0, 1, 1] = -2.0
    gate.net[2].bias.data.fill_(3.0)
    return gate


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_factor_by_hand():
    gate = opened(MotionGate(cues=('difference',)))
    feature, last = torch.zeros(2, 4, 3, 5), torch.zeros(2, 4, 3, 5)
    feature[:, :, 1, 2] = torch.tensor([1.0, -1.0, 2.0, 0.0])  # mean of the absolute difference: 1
    factor = gate(feature, last, torch.zeros(2, 4), torch.tensor([True, False]))
    assert factor[0, 0, 1, 2].item() == pytest.approx(sigmoid(1.0), abs=1e-6)
    assert factor[0, 0, 0, 0].item() == pytest.approx(sigmoid(3.0), abs=1e-6)
    assert (factor[1] - sigmoid(3.0)).abs().max() < 1e-6  # without history there is no difference
    speed = opened(MotionGate(cues=('speed',)))
    factor = speed(feature, last, torch.tensor([[6.0, 8.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), torch.tensor([True, True]))
    assert (factor[0] - sigmoid(1.0)).abs().max() < 1e-6 and (factor[1] - sigmoid(3.0)).abs().max() < 1e-6


def test_the_gate_starts_almost_open():
    g = torch.Generator().manual_seed(0)
    factor = MotionGate()(torch.randn(1, 8, 4, 6, generator=g), torch.randn(1, 8, 4, 6, generator=g), torch.ones(1, 4),
                          torch.ones(1, dtype=torch.bool))
    assert (factor - sigmoid(3.0)).abs().max() < 1e-6


WIDE = (-10.0, -6.0, -5.0, 10.0, 6.0, 3.0)


def content(x_m):
    """A world seen from x_m: (1, 3, 12, 20), 1 m cells; its middle is full, all else empty."""
    world = torch.zeros(1, 3, 12, 40)
    world[:, :, 4:8, 18:22] = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    left = round(x_m) + 10
    return world[..., left:left + 20]


def factors(module, maps, poses, frame):
    """The factor of the last frame, and the feature difference it was made of."""
    seen, forward = [], module.motion_gate.forward
    module.motion_gate.forward = lambda *args: seen.append((forward(*args), args)) or seen[-1][0]
    memory = module.init_state(SceneFeatures(maps[0]))
    with torch.no_grad():
        for t, (bev, pose) in enumerate(zip(maps, poses)):
            frames = frame(t, pose)
            aligned = module.align(memory, frames)
            readout = module.read(aligned, SceneFeatures(bev), frames)
            memory = module.write(aligned, readout, None, frames)
    del module.motion_gate.forward
    factor, (feature, last, _, _) = seen[-1]
    return factor[0, 0], (feature - last).abs().mean(dim=1)[0]


def test_a_world_that_stands_still_moves_nothing_once_the_ego_is_taken_out(build, bev, frame, pose):
    module = build(motion_gate=dict(cues=['difference']), point_cloud_range=WIDE)
    opened(module.motion_gate)
    poses = [pose(x=0.0), pose(x=2.0)]  # one memory cell
    inner = (slice(1, 5), slice(2, 7))  # cells whose surroundings both frames saw
    factor, difference = factors(module, [content(0), content(2)], poses, frame)
    assert difference[inner].max() < 1e-4 and (factor[inner] - sigmoid(3.0)).abs().max() < 1e-4
    for align in ('none', 'loader'):
        other = build(motion_gate=dict(cues=['difference']), point_cloud_range=WIDE, align=align)
        opened(other.motion_gate)
        assert factors(other, [content(0), content(2)], poses, frame)[1][inner].max() > 0.05
    moved = content(2).clone()
    moved[:, :, 4:8, 2:4] += 2.0  # something new
    factor, difference = factors(module, [content(0), moved], poses, frame)
    assert difference[2, 1] > 0.1 and factor[2, 1] < sigmoid(3.0) - 0.01
    assert difference[2, 5:7].max() < 1e-4  # and nothing where it is not


def test_a_closed_gate_leaves_only_the_current_frame(build, bev, frame, pose, play):
    module = build(motion_gate=dict(cues=['speed']), key_position=False)
    module.motion_gate.net[2].weight.data.zero_()
    module.motion_gate.net[2].bias.data.fill_(-100.0)
    steps = [frame(t, pose(x=t)) for t in range(3)]
    remembering = play(module, [bev(0), bev(1), bev(2)], steps)[0][2]
    fresh = play(module, [bev(2)], [frame(0, pose(x=2))])[0][0]
    assert (remembering.bev - fresh.bev).abs().max() < 1e-6
    module.motion_gate.net[2].bias.data.fill_(100.0)
    ungated = build(key_position=False)
    ungated.load_state_dict({k: v for k, v in module.state_dict().items() if 'motion_gate' not in k})
    both = [play(one, [bev(0), bev(1), bev(2)], steps)[0][2].bev for one in (module, ungated)]
    assert (both[0] - both[1]).abs().max() < 1e-6


def test_unknown_cues_are_named(build):
    for cues in (['colour'], []):
        with pytest.raises(ValueError, match='motion_gate.cues'):
            build(motion_gate=dict(cues=cues))
