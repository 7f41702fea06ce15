"""QueryMemory: what is kept, where it lies as the ego moves, scenes of different age, what a head must offer."""

import numpy as np
import pytest
import torch

from projects.memfusion.memory import QueryMemory
from projects.memfusion.structures import FrameBatch, FrameMeta, HeadOutputs, QueryProposals, Readout, SceneFeatures

RANGE = [-51.2, -51.2, -5, 51.2, 51.2, 3]


class Offer:
    """What a head's outputs look like to the memory."""

    def __init__(self, carried):
        self.carried = carried


def offer(t, batch=1, queries=5, **others):
    """Queries at (t, q, 0) whose embeddings say t and q; the last scores best."""
    number = torch.arange(queries).float().expand(batch, -1)
    places = torch.stack([torch.full_like(number, t), number, torch.zeros_like(number)], -1)
    return HeadOutputs(Offer(QueryProposals(**{**dict(
        embeddings=places[..., :2], references_m=places, velocity=torch.tensor([2.0, 0.0]).expand(batch, queries, 2),
        scores=0.1 + number / 10, num_there=queries), **others})), list)


def meta(scene, index, start=None, bev_aug=None):
    """A frame 3 m further along y than the one before it, turned by 90 degrees more, 0.5 s later."""
    pose, turns = np.eye(4), index % 4
    pose[:2, :2] = np.linalg.matrix_power([[0, -1], [1, 0]], turns)
    pose[:3, 3] = [1e5, 3.0 * index, 0.0]
    return FrameMeta(f'{scene}{index}', scene, index, index == 0 if start is None else start, False, 1.5e9 + 0.5 * index,
                     pose, np.eye(4) if bev_aug is None else bev_aug, True, True)


def walk(memory, steps, offers=None):
    """steps: T lists of metas -> T readouts, and the last state."""
    readouts, state = [], None
    features = SceneFeatures(bev=torch.zeros(len(steps[0]), 2, 4, 4))
    for t, metas in enumerate(steps):
        frames = FrameBatch.from_metas(metas, torch.device('cpu'))
        state = memory.align(memory.init_state(features) if state is None else state, frames)
        readouts.append(memory.read(state, features, frames))
        outputs = offer(t, len(metas)) if offers is None else offers[t]
        state = memory.write(state, readouts[-1], outputs, frames).where(frames.there, state)
    return [readout.queries for readout in readouts], state


def test_the_best_are_kept_newest_first_and_move_with_the_ego():
    memory = QueryMemory(RANGE, embed_dims=2, num_slots=4, num_kept=2)
    assert not list(memory.parameters()) and memory.needs_outputs
    found, state = walk(memory, [[meta('a', index)] for index in range(4)])
    assert [each['there'][0].sum().item() for each in found] == [0, 2, 4, 4]
    assert [each['run'].item() for each in found] == [0, 0, 2, 2]
    assert found[2]['embeddings'][0].tolist() == [[1, 4], [1, 3], [0, 4], [0, 3]]
    assert found[3]['embeddings'][0].tolist() == [[2, 4], [2, 3], [1, 4], [1, 3]]
    assert torch.allclose(found[2]['age_s'], torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    # (0, 4, 0) of frame 0 is seen from frame 1, which stands at y = 3 and looks along y.
    assert torch.allclose(found[1]['references_m'][0, 0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-4)
    assert torch.allclose(found[1]['velocity'][0, 0], torch.tensor([0.0, -2.0, 0.0]), atol=1e-6)
    moved = found[2]['motion'][0, 2] @ torch.tensor([0.0, 4.0, 0.0, 1.0])
    assert torch.allclose(moved[:3], found[2]['references_m'][0, 2], atol=1e-4)
    assert state.ages == (4,) and not state.embeddings.requires_grad
    still, _ = walk(QueryMemory(RANGE, 2, 4, 2, align='none'), [[meta('a', index)] for index in range(3)])
    assert torch.allclose(still[2]['references_m'][0, 2], torch.tensor([0.0, 4.0, 0.0]), atol=1e-4)
    assert torch.equal(still[2]['motion'][0, 2], torch.eye(4))


def test_a_flipped_and_turned_scene_remembers_the_same():
    aug = np.diag([-1.05, 1.05, 1.05, 1.0]) @ np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    turn = torch.from_numpy(aug).float()
    plain, _ = walk(QueryMemory(RANGE, 2, 4, 2), [[meta('a', index)] for index in range(3)])
    offers = [offer(t) for t in range(3)]
    for one in offers:
        said = one.raw.carried
        moved = said.references_m @ turn[:3, :3].T
        flat = torch.nn.functional.pad(said.velocity, (0, 1)) @ turn[:3, :3].T
        one.raw.carried = QueryProposals(said.embeddings, moved, flat[..., :2], said.scores, said.num_there)
    changed, _ = walk(QueryMemory(RANGE, 2, 4, 2), [[meta('a', index, bev_aug=aug)] for index in range(3)], offers)
    assert torch.allclose(changed[2]['references_m'], plain[2]['references_m'] @ turn[:3, :3].T, atol=1e-4)
    assert torch.allclose(changed[2]['velocity'], plain[2]['velocity'] @ turn[:3, :3].T, atol=1e-5)
    assert torch.equal(changed[2]['age_s'], plain[2]['age_s'])


def test_scenes_of_different_age_and_a_reset_share_a_batch():
    steps = [[meta('a', index), meta(*other)] for index, other in enumerate([('b', 0), ('b', 1), ('c', 0), ('c', 1)])]
    memory = QueryMemory(RANGE, embed_dims=2, num_slots=6, num_kept=2)
    together, state = walk(memory, steps)
    for row in range(2):
        alone, own = walk(memory, [[step[row]] for step in steps])
        for both, one in zip(together, alone):
            assert all(torch.allclose(both[name][row:row + 1].double(), one[name].double(), atol=1e-5) for name in both)
        assert torch.allclose(state.references[row:row + 1], own.references)
    assert together[2]['there'].sum(1).tolist() == [4, 0] and state.ages == (4, 2)
    # Empty slots stand where the scene began.
    assert torch.allclose(together[3]['references_m'][1, -1], together[3]['motion'][1, 0, :3, 3], atol=1e-4)
    assert state.detach().select([1]).ages == (2,)


def test_a_scene_may_begin_with_points_and_a_query_that_is_not_there_is_not_remembered():
    memory = QueryMemory(RANGE, embed_dims=2, num_slots=6, num_kept=2)
    start = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]])
    few = offer(1, start_m=start, scores=torch.tensor([[0.5, 0.4, -1.0, -1.0, -1.0]]), num_there=2)
    offers = [offer(0, start_m=start), few, offer(2)]
    found, _ = walk(memory, [[meta('a', index)] for index in range(3)], offers)
    assert found[1]['there'][0].tolist() == [True] * 4 + [False] * 2
    assert torch.allclose(found[1]['references_m'][0, 2], torch.tensor([-1.0, -1.0, 0.0]), atol=1e-4)
    assert found[2]['embeddings'][0, :2].tolist() == [[1, 0], [1, 1]]


def test_padding_leaves_the_memory_alone():
    memory = QueryMemory(RANGE, embed_dims=2, num_slots=4, num_kept=2)
    frames = FrameBatch.from_metas([meta('a', 0), meta('b', 0)], torch.device('cpu')).with_there([True, False])
    state = memory.align(memory.init_state(SceneFeatures(bev=torch.zeros(2, 2, 4, 4))), frames)
    after = memory.write(state, Readout(), offer(0, 2), frames).where(frames.there, state)
    assert after.ages == (1, 0) and after.there.any(1).tolist() == [True, False]


def test_bad_settings_and_heads_are_named():
    with pytest.raises(ValueError, match='num_kept must lie in 1..num_slots=4'):
        QueryMemory(RANGE, num_slots=4, num_kept=5)
    memory = QueryMemory(RANGE, embed_dims=2, num_slots=8, num_kept=6)
    with pytest.raises(ValueError, match='offers 5 of width 2'):
        walk(memory, [[meta('a', 0)]])
    with pytest.raises(TypeError, match='QueryMemory keeps'):
        walk(memory, [[meta('a', 0)]], [HeadOutputs(object(), list)])
