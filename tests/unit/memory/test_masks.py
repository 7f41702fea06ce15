"""Masks: every source, what training may do to them, and whose box is whose."""

import math
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch

from projects.geometry import BEVGrid, pad_rows, rasterize_boxes
from projects.memfusion.memory.bev_network import others_of, union_logits
from projects.memfusion.memory.masks import MaskPolicy, boxes_to_masks, draw_masks, drop_blocks, match_agents
from projects.memfusion.structures import SceneFeatures

RANGE = (-6.0, -4.0, -5.0, 6.0, 4.0, 3.0)


def box(x, y, length=1.8, width=1.8, yaw=0.0):
    return torch.tensor([x, y, -1.0, length, width, 1.5, yaw, 0.0, 0.0])


def boxes(*given):
    return torch.stack(given) if given else torch.zeros(0, 9)


# -- drawing --------------------------------------------------------------------------------------------------------
def test_boxes_fill_the_memory_cells_counted_by_hand():
    """Cells of 2 x 2 m: x from -6, y from -4. A box on the first agent's mask, one on the second's, none beside them."""
    found = pad_rows([boxes(box(-1.0, 1.0, 4.0, 1.8), box(5.0, -3.0))])
    first = boxes_to_masks(*found, torch.tensor([[0, 1]]), 2, RANGE, (4, 6))
    assert first.shape == (1, 2, 4, 6)
    assert first[0, 0].nonzero().tolist() == [[2, 1], [2, 2], [2, 3]]  # x from -3 to 1: the centres at -3, -1 and 1
    assert first[0, 1].nonzero().tolist() == [[0, 5]]
    assert boxes_to_masks(*pad_rows([boxes()]), torch.zeros(1, 0, dtype=torch.long), 2, RANGE, (4, 6)).sum() == 0


# -- sources in the slot ------------------------------------------------------------------------------------------------
class Written(NamedTuple):
    """What went into memory with a frame, and the state's mask after it."""

    written: torch.Tensor
    kept: torch.Tensor


@contextmanager
def written_masks(module):
    """The masks that the module writes while the body runs."""
    seen, encode = [], module.network.encode_value
    module.network.encode_value = lambda query, mask, sensory: seen.append(mask) or encode(query, mask, sensory)
    yield seen
    del module.network.encode_value


@pytest.fixture
def chosen(build, bev, frame, pose, advance):
    """chosen(source, found per frame, ...): masks (frames) that two steps choose, the ego 2 m forward in between."""

    def run(source, found=((), ()), truth=None, training=False, labelled=True, **masks):
        module = build(mask_source=source, masks=masks).train(training)
        memory, answers = module.init_state(SceneFeatures(bev(0))), []
        for t in range(2):
            frames = frame(t, pose(x=2.0 * t), labelled=labelled)
            with written_masks(module) as written:
                readout, _, memory = advance(module, bev(t), memory, frames, [boxes(*found[t])],
                                             None if truth is None else [boxes(*truth[t])])
            answers.append((Written(written[0], memory.mask), readout, memory))
        return answers

    return run


def test_none_writes_zeros_and_occupancy_what_is_predicted(chosen):
    for mask, _, _ in chosen('none'):
        assert mask.written.abs().max() == 0
    for mask, readout, memory in chosen('occupancy'):
        assert torch.equal(mask.written, readout.aux['occ_logits'].sigmoid())
        assert torch.equal(memory.mask, readout.aux['occ_logits'].sigmoid())


def test_detections_of_this_frame(chosen):
    first, second = chosen('detections', found=((box(1.0, 1.0),), ()))
    assert first[0].written.nonzero().tolist() == [[0, 0, 2, 3]]
    assert second[0].written.sum() == 0


def test_detections_of_the_last_frame_move_with_the_ego(chosen):
    first, second = chosen('previous_detections', found=((box(1.0, 1.0),), (box(-3.0, -3.0),)))
    assert first[0].written.sum() == 0  # no detections before the first frame
    expected = torch.zeros(1, 1, 4, 6)
    expected[0, 0, 2, 2] = 1.0  # the ego went one cell forward, the box came one cell nearer
    assert (second[0].written - expected).abs().max() < 1e-5
    assert second[0].kept.nonzero().tolist() == [[0, 0, 0, 1]] and torch.equal(second[2].mask, second[0].kept)


def test_what_is_written_changes_the_values(chosen):
    """Else the mask's way into memory could be cut without notice."""
    with_mask = chosen('detections', found=((box(1.0, 1.0),), ()))[0][2]
    without = chosen('detections')[0][2]
    difference = (with_mask.value - without.value)[0, -1, 0].abs().amax(0)
    assert difference[2, 3] > 0.01
    assert torch.equal(with_mask.key, without.key)  # but not the keys


def test_truth_is_for_training_only(chosen):
    truth = ((box(1.0, 1.0),), (box(3.0, 1.0),))
    first, second = chosen('truth', truth=truth, training=True)
    assert first[0].written.nonzero().tolist() == [[0, 0, 2, 3]] and second[0].written.nonzero().tolist() == [[0, 0, 2, 4]]
    with pytest.raises(ValueError, match='training only'):
        chosen('truth', truth=truth)
    with pytest.raises(ValueError, match='training only'):
        chosen('truth', training=True)


def test_truth_at_a_sweep_without_labels_is_an_error_not_an_empty_mask(chosen):
    with pytest.raises(ValueError, match='without labels'):
        chosen('truth', truth=((), ()), training=True, labelled=False)


def test_detections_that_nobody_gives_are_an_error(build, bev, frame, pose, advance):
    module = build(mask_source='detections')
    with pytest.raises(ValueError, match='needs the boxes'):
        advance(module, bev(0), module.init_state(SceneFeatures(bev(0))), frame(0, pose()))


# -- training: schedule and corruption --------------------------------------------------------------------------------
TRUTH = ((box(1.0, 1.0),), (box(3.0, 1.0),))


def test_teacher_forcing_always_and_never(chosen):
    for mask, readout, _ in chosen('occupancy', truth=TRUTH, training=True, teacher_forcing=0.0):
        assert torch.equal(mask.written, readout.aux['occ_logits'].sigmoid())
    forced = chosen('occupancy', truth=TRUTH, training=True, teacher_forcing=1.0)
    assert forced[1][0].written.nonzero().tolist() == [[0, 0, 2, 4]]
    assert torch.equal(forced[1][0].kept, forced[1][1].aux['occ_logits'].sigmoid())  # only what is written is forced
    for mask, readout, _ in chosen('occupancy', truth=TRUTH, training=False, teacher_forcing=1.0):
        assert torch.equal(mask.written, readout.aux['occ_logits'].sigmoid())  # never in testing
    for mask, readout, _ in chosen('occupancy', truth=((), ()), training=True, teacher_forcing=1.0, labelled=False):
        assert torch.equal(mask.written, readout.aux['occ_logits'].sigmoid())  # a sweep has no truth


def test_teacher_forcing_forces_its_share_of_frames(build, bev, frame, pose, advance):
    module = build(masks=dict(teacher_forcing=0.3)).train()
    frames = frame(0, [pose()] * 400)
    memory = module.init_state(SceneFeatures(bev(0, batch=400)))
    torch.manual_seed(0)
    with torch.no_grad():
        with written_masks(module) as written:
            readout, _, _ = advance(module, bev(0, batch=400), memory, frames, None, [boxes(box(1.0, 1.0))] * 400)
    forced = (written[0][:, 0].sum(dim=(1, 2)) == 1) & (written[0][:, 0, 2, 3] == 1)
    assert 90 <= int(forced.sum()) <= 150
    kept = readout.aux['occ_logits'].sigmoid()
    assert torch.equal(written[0][~forced], kept[~forced])


def test_block_dropout_empties_whole_blocks_and_only_those():
    torch.manual_seed(0)
    mask = torch.rand(8, 2, 10, 14) + 0.1
    dropped = drop_blocks(mask, 0.4, 4)
    share = []
    for b in range(8):
        for row in range(0, 10, 4):
            for column in range(0, 14, 4):
                part = dropped[b, :, row:row + 4, column:column + 4]
                empty = bool((part == 0).all())
                assert empty or torch.equal(part, mask[b, :, row:row + 4, column:column + 4])
                share.append(empty)
    assert 0.25 < sum(share) / len(share) < 0.55
    assert torch.equal(drop_blocks(mask, 0.0, 4), mask) and (drop_blocks(mask, 1.0, 4) == 0).all()


def test_block_dropout_is_for_training_only(chosen):
    for training in (True, False):
        written = chosen('occupancy', training=training, block_dropout=1.0)[0][0].written
        assert bool((written == 0).all()) == training


# -- agents -----------------------------------------------------------------------------------------------------------
class Track:
    """Feeds boxes frame after frame, 0.5 s apart, to one sample's agents."""

    def __init__(self, **policy):
        self.policy = MaskPolicy(source='detections', **policy)
        self.position = torch.zeros(1, self.policy.num_agents, 2, dtype=torch.float64)
        self.time_s = torch.zeros(1, self.policy.num_agents, dtype=torch.float64)

    def see(self, at, *found, global_from_bev=None):
        now = torch.tensor(1.5e9 + 0.5 * at, dtype=torch.float64)
        eye = torch.eye(4, dtype=torch.float64) if global_from_bev is None else global_from_bev
        found = boxes(*found)[None]
        valid = torch.ones(found.shape[:2], dtype=torch.bool)
        owners, self.position, self.time_s = match_agents(
            found, valid, eye[None], self.position, self.time_s, now[None], self.policy)
        return owners[0].tolist()


def test_objects_that_cross_keep_who_they_are():
    track = Track(num_agents=3, match_m=3.0)
    for t in range(9):  # along y = +-0.6, against each other, at 2 m a frame
        right, left = box(-8.0 + 2.0 * t, 0.6), box(8.0 - 2.0 * t, -0.6)
        found = (right, left) if t % 2 == 0 else (left, right)  # the order of the boxes says nothing
        owners = track.see(t, *found)
        assert owners == ([0, 1] if t % 2 == 0 else [1, 0]), t


def test_a_lost_agent_comes_back_to_its_place_within_keep_s():
    track = Track(num_agents=3, match_m=4.0, keep_s=1.0)
    assert track.see(0, box(0, 0), box(10, 0)) == [0, 1]
    assert track.see(1, box(10, 0)) == [1]
    assert track.see(2, box(10, 0), box(1, 0)) == [1, 0]  # 1 s later: it is back
    assert track.see(3, box(10, 0)) == [1]
    assert track.see(5, box(10, 0), box(20, 0)) == [1, 0]  # 1.5 s: its place was free and went to a new one


def test_a_place_is_kept_from_others_while_it_is_waited_for():
    track = Track(num_agents=2, match_m=2.0, keep_s=1.0)
    assert track.see(0, box(0, 0)) == [0]
    assert track.see(1, box(30, 0)) == [1]  # no place left: among the others


def test_those_too_many_share_the_last_mask():
    track = Track(num_agents=3)
    assert track.see(0, box(0, 0), box(10, 0), box(20, 0), box(30, 0)) == [0, 1, 2, 2]
    assert track.see(1, box(30, 0), box(20, 0), box(10, 0), box(0, 0)) == [2, 2, 1, 0]
    assert Track(num_agents=1).see(0, box(0, 0), box(10, 0)) == [0, 0]
    assert Track(num_agents=3).see(0) == []


def test_two_boxes_never_share_a_tracked_place():
    track = Track(num_agents=3, match_m=5.0)
    track.see(0, box(0, 0))
    assert track.see(1, box(0.5, 0), box(0.6, 0)) == [0, 1]


def test_agents_are_matched_in_the_world_not_in_the_car():
    """The car drives 10 m a frame and turns; the objects stand still."""
    track, still = Track(num_agents=3, match_m=1.0), torch.tensor([[30.0, 5.0, 0, 1], [30.0, -5.0, 0, 1]], dtype=torch.float64)
    for t in range(4):
        global_from_bev = torch.eye(4, dtype=torch.float64)
        angle = 0.5 * t
        global_from_bev[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        global_from_bev[0, 3] = 10.0 * t
        seen = (still @ torch.linalg.inv(global_from_bev).T).float()
        found = [box(float(x), float(y)) for x, y in seen[:, :2]]
        owners = track.see(t, *(found if t % 2 == 0 else found[::-1]), global_from_bev=global_from_bev)
        assert owners == ([0, 1] if t % 2 == 0 else [1, 0])


@pytest.mark.parametrize('num_agents', [1, 2, 4])
def test_a_batch_is_drawn_as_a_walk_over_its_boxes_says(num_agents):
    """The oracle walks over the boxes of each sample in order; crowds, empty samples, places lost and found."""
    g, policy = torch.Generator().manual_seed(num_agents), MaskPolicy(source='detections', num_agents=num_agents, match_m=3.0)
    position, time_s = torch.zeros(5, num_agents, 2, dtype=torch.float64), torch.zeros(5, num_agents, dtype=torch.float64)
    grid, served = BEVGrid(RANGE, (2.0, 2.0, 8.0), 1), 0
    for t in range(5):
        counts = torch.randint(0, 9, (5,), generator=g).tolist()
        found = [boxes(*[box(*(torch.rand(2, generator=g) * 8 - 4).tolist()) for _ in range(count)]) for count in counts]
        poses, now_s = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1), torch.full((5,), 100.0 + 1.5 * t, dtype=torch.float64)
        poses[:, 0, 3] = torch.arange(5) + 0.2 * t
        masks, new_position, new_time_s = draw_masks(*pad_rows(found), poses, position, time_s, now_s, policy, RANGE, (4, 6))
        for b in range(5):
            owners, where, when = walk(found[b], poses[b], position[b], time_s[b], now_s[b], policy)
            served += sum(owner < num_agents - 1 for owner in owners)
            assert torch.equal(new_time_s[b], when) and (new_position[b] - where).abs().max() < 1e-12
            for agent in range(num_agents):
                mine = found[b][[owner == agent for owner in owners]]
                assert torch.equal(masks[b, agent].bool(), rasterize_boxes(mine[:, :7], grid))
        position, time_s = new_position, new_time_s
    assert served > 10 or num_agents == 1


def walk(found, global_from_bev, position, time_s, now_s, policy):
    """One sample, box by box: owners, positions, stamps."""
    position, time_s, last = position.clone(), time_s.clone(), policy.num_agents - 1
    time_s[now_s - time_s > policy.keep_s] = 0
    was_here, taken, owners = time_s[:last] > 0, set(), []
    for one in found.double():
        center = (global_from_bev @ torch.cat([one[:3], torch.ones(1, dtype=torch.float64)]))[:2]
        near = {k: float((position[k] - center).norm()) for k in range(last) if was_here[k] and k not in taken}
        place = min(near, key=near.get, default=None)
        if place is None or near[place] > policy.match_m:
            place = next((k for k in range(last) if not was_here[k] and k not in taken), None)
        owners.append(last if place is None else place)
        if place is not None:
            taken.add(place)
            position[place], time_s[place] = center, now_s
    return owners, position, time_s


def test_agents_of_the_slot_keep_their_masks_apart(build, bev, frame, pose, advance):
    module = build(mask_source='detections', masks=dict(num_agents=3))
    memory = module.init_state(SceneFeatures(bev(0)))
    for t, found in enumerate((boxes(box(-3, 1), box(3, 1)), boxes(box(3, 1), box(-3, 1)))):
        with written_masks(module) as written:
            memory = advance(module, bev(t), memory, frame(t, pose()), [found])[2]
        assert written[0][0, 0].nonzero().tolist() == [[2, 1]] and written[0][0, 1].nonzero().tolist() == [[2, 4]]
        assert written[0][0, 2].sum() == 0


@torch.no_grad()
def test_each_agent_reads_as_if_it_were_alone(build, bev, frame, pose, advance):
    """Keys are shared, values are not: with two agents, of which one has no boxes, the other equals a lonely one's memory."""
    alone = build(mask_source='detections', masks=dict(num_agents=1), random_weights=True)
    several = build(mask_source='detections', masks=dict(num_agents=2), random_weights=True)
    several.load_state_dict(alone.state_dict())
    states = {1: alone.init_state(SceneFeatures(bev(0))), 2: several.init_state(SceneFeatures(bev(0)))}
    for t in range(4):
        frames, found = frame(t, pose(x=0.5 * t)), [boxes(box(1.0 - 0.5 * t, 1.0))]
        one, _, states[1] = advance(alone, bev(t), states[1], frames, found)
        two, _, states[2] = advance(several, bev(t), states[2], frames, found)
        assert (one.carried.agent_logits[:, 0] - two.carried.agent_logits[:, 0]).abs().max() < 1e-5
        assert (states[1].value[:, :, 0] - states[2].value[:, :, 0]).abs().max() < 1e-5
        assert (states[1].sensory[:, 0] - states[2].sensory[:, 0]).abs().max() < 1e-5
        expected = union_logits(two.carried.agent_logits)
        assert torch.equal(two.aux['occ_logits'], expected)
    assert (states[2].value[:, -1, 0] - states[2].value[:, -1, 1]).abs().max() > 0.01


def test_the_union_of_agents_by_hand():
    def logit(p):
        return math.log(p / (1 - p))

    logits = torch.tensor([logit(0.5), logit(0.2), logit(0.75)]).view(1, 3, 1, 1)
    assert union_logits(logits).item() == pytest.approx(logit(1 - 0.5 * 0.8 * 0.25), abs=1e-5)
    assert torch.equal(union_logits(logits[:, :1]), logits[:, :1])  # one agent: its own, to the bit
    g = torch.Generator().manual_seed(0)
    many = 6 * torch.randn(2, 4, 3, 5, generator=g, dtype=torch.float64)
    expected = 1 - (1 - many.sigmoid()).prod(1, keepdim=True)
    assert (union_logits(many).sigmoid() - expected).abs().max() < 1e-12
    assert (union_logits(many.float()).sigmoid() - expected).abs().max() < 1e-6
    assert union_logits(torch.full((1, 2, 1, 1), 40.0)).item() == pytest.approx(80.0, abs=1e-3)


@pytest.mark.parametrize('value', [-200.0, -90.0, -30.0, 0.0, 90.0, 200.0])
def test_the_union_of_certain_agents_has_finite_gradients(value):
    logits = torch.full((1, 2, 1, 1), value, requires_grad=True)
    union = union_logits(logits)
    union.sum().backward()
    assert torch.isfinite(union).all() and torch.isfinite(logits.grad).all()


def test_others_are_everybody_else():
    masks = torch.tensor([0.5, 0.25, 0.0]).view(1, 3, 1, 1)
    assert others_of(masks).flatten().tolist() == [0.25, 0.5, 0.75]
    assert others_of(masks[:, :1]).abs().max() == 0


@pytest.mark.parametrize('settings, word', [
    (dict(score_threshold=1.5), 'score_threshold'), (dict(teacher_forcing=-0.1), 'teacher_forcing'),
    (dict(block_dropout=2), 'block_dropout'), (dict(block_cells=0), 'block_cells'), (dict(num_agents=0), 'num_agents'),
    (dict(num_agents=2), "'detections'"), (dict(num_agents=2, source='none'), "'detections'"),
    (dict(source='x'), 'mask_source')])
def test_bad_policies_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        MaskPolicy(**settings)
