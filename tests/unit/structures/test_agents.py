"""Unit: agents of scenes with different counts share a padded batch; what does not fit is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from projects.memfusion.structures.agents import Agents


def agents_of(count: int, frames: int = 3, seed: int = 0) -> Agents:
    """One scene of random agents."""
    made = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(1, count, *shape, generator=made, dtype=torch.float64)

    there = torch.ones(1, count, frames, dtype=torch.bool)
    return Agents(there[..., 0], some(frames, 2), there, some(frames, 8), some(12, 2), some(12) > 0.1, some(frames, 7),
                  some(4, 4), (tuple(f'i{seed}{n}_s{seed}' for n in range(count)),))


def test_scenes_are_padded_to_the_largest() -> None:
    scenes = [agents_of(2, seed=1), agents_of(0, seed=2), agents_of(3, seed=3)]
    batch = Agents.cat(scenes)
    assert batch.valid.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert [len(row) for row in batch.tokens] == [2, 0, 3] and batch.num_frames == 3
    for row, (scene, count) in enumerate(zip(scenes, (2, 0, 3))):
        for name, tensor in batch.tensors().items():
            assert torch.equal(tensor[row, :count], scene.tensors()[name][0])
            rest = tensor[row, count:]
            assert (rest == torch.eye(4)).all() if name == 'global_from_agent' else not rest.any()
    assert Agents.cat([scenes[0]]).tensors().keys() == batch.tensors().keys()
    assert Agents.cat([scenes[1]]).valid.shape == (1, 0)


def test_what_does_not_fit_is_named() -> None:
    scene = agents_of(2)
    with pytest.raises(ValueError, match=r'agents.boxes must be \(1, 2, 3, 7\), got \(1, 2, 2, 7\)'):
        replace(scene, boxes=scene.boxes[:, :, 1:])
    with pytest.raises(ValueError, match=r'tokens names \[3\] agents'):
        replace(scene, tokens=(('a', 'b', 'c'),))
    with pytest.raises(ValueError, match=r'one length, got \[2, 3\] frames'):
        Agents.cat([scene, agents_of(2, frames=2)])
    with pytest.raises(ValueError, match='2 agents cannot be padded to 1'):
        scene.padded(1)
