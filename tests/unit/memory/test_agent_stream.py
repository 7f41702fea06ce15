"""AgentStream: XMem over clips, one mask per agent, none of the faults of a loop made for one video."""

import pytest
import torch

from projects.memfusion.memory import AgentStream

SHAPE = (32, 48)


@pytest.fixture(scope='module')
def image():
    torch.manual_seed(0)
    network = dict(type='ImageMemoryNetwork', in_channels=3, adapter=False, bev_shape=SHAPE, key_dim=8, value_dim=16,
                   hidden_dim=4)
    return AgentStream(network, top_k=None).eval()


@pytest.fixture(scope='module')
def light():
    torch.manual_seed(0)
    network = dict(type='BEVMemoryNetwork', in_channels=3, key_dim=4, value_dim=6, hidden_dim=5, feature_dim=8, memory_stride=8)
    return AgentStream(network, top_k=7).eval()


def clips(batch=1, length=3, agents=2, seed=0):
    made = torch.Generator().manual_seed(seed)
    frames = torch.rand(batch, length, 3, *SHAPE, generator=made)
    masks = (torch.rand(batch, length, agents, *SHAPE, generator=made) > 0.7).float()
    return frames, masks, torch.ones(batch, length, agents, dtype=torch.bool)


@torch.no_grad()
def test_it_is_xmem_frame_by_frame(image):
    """Against a loop over one agent's frames with nothing but the published network's methods."""
    frames, masks, there = clips(agents=1)
    xmem, sensory, stored = image.network.xmem, torch.zeros(1, 1, 4, 2, 3), []
    memory = image(frames, masks, there)
    for t in range(3):
        key, shrinkage, selection, f16, f8, f4 = xmem.encode_key(frames[:, t])
        if stored:
            old, sharp, held = (torch.cat(parts, dim=-1) for parts in zip(*stored))
            query, choice = key.flatten(2), selection.flatten(2)
            apart = ((query[:, :, None] - old[..., None]) ** 2 * choice[:, :, None]).sum(1)  # 1, N, M
            readout = held @ (-apart * sharp[0, 0][:, None] / 8 ** 0.5).softmax(dim=1)
            sensory, logits, _ = xmem.segment(f16, f8, f4, readout.view(1, 1, 16, 2, 3), sensory)
            assert torch.allclose(memory.readout[:, t, 0].flatten(2), readout, atol=1e-4)
            assert torch.allclose(memory.logits[:, t], logits, atol=1e-3)
        value, sensory = xmem.encode_value(frames[:, t], f16, sensory, masks[:, t], deep_update=True)
        stored.append((key.flatten(2), shrinkage.flatten(2), value[:, 0].flatten(2)))
        assert torch.allclose(memory.sensory[:, t], sensory, atol=1e-4)
    assert memory.remembered.tolist() == [[[False], [True], [True]]]


@torch.no_grad()
@pytest.mark.parametrize('kind', ['image', 'light'])
def test_the_last_feature_is_not_stale(kind, request):
    """The published loop leaves the sensory state alone at a step that ends a video."""
    stream = request.getfixturevalue(kind)
    sensory = stream(*clips()).sensory

    def is_fresh(states):
        return bool((states[:, -1] - states[:, -2]).abs().amax(dim=(0, 2, 3, 4)).min() > 1e-4)

    assert is_fresh(sensory)
    assert not is_fresh(torch.cat([sensory[:, :-1], sensory[:, -2:-1]], dim=1))


@torch.no_grad()
def test_every_sample_has_its_own_masks(light):
    frames, masks, there = clips(batch=2)
    together = light(frames, masks, there)

    def are_alone(memory):
        alone = [light(frames[b:b + 1], masks[b:b + 1], there[b:b + 1]).sensory[0] for b in range(2)]
        return all(torch.allclose(both, one, atol=1e-5) for both, one in zip(memory.sensory, alone))

    assert are_alone(together)
    assert not are_alone(light(frames, masks[:1].expand_as(masks), there))  # one mask for the batch


@torch.no_grad()
def test_agents_follow_their_order_and_padding_changes_nothing(light):
    frames, masks, there = clips(agents=3)
    memory, order = light(frames, masks, there), [2, 0, 1]
    turned = light(frames, masks[:, :, order], there[:, :, order])
    for name in ('sensory', 'readout', 'logits'):
        assert torch.allclose(getattr(memory, name)[:, :, order], getattr(turned, name), atol=1e-5)
    padded = light(frames, torch.cat([masks, torch.rand_like(masks[:, :, :1])], dim=2),
                   torch.nn.functional.pad(there, (0, 1)))
    assert torch.allclose(padded.sensory[:, :, :3], memory.sensory, atol=1e-5) and not padded.sensory[:, :, 3].any()


@torch.no_grad()
def test_an_agent_that_appears_later_has_no_past_and_one_that_is_hidden_goes_on(light):
    frames, masks, there = clips(length=4, agents=1)
    there[:, :2] = False
    late, alone = light(frames, masks, there), light(frames[:, 2:], masks[:, 2:], there[:, 2:])
    assert not late.sensory[:, :2].any() and torch.allclose(late.sensory[:, 2:], alone.sensory, atol=1e-5)
    assert torch.allclose(late.readout[:, 2:], alone.readout, atol=1e-5)
    hidden = there.clone()
    hidden[:, 3] = False
    memory = light(frames, masks, hidden)
    assert torch.equal(memory.sensory[:, 2], late.sensory[:, 2]) and not torch.equal(memory.sensory[:, 3], memory.sensory[:, 2])


def test_nobody_is_no_error_and_what_does_not_fit_is(light, image):
    frames, masks, there = clips(agents=0)
    memory = light(frames, masks, there)
    assert memory.sensory.shape == (1, 3, 0, 5, 4, 6) and memory.logits.shape == (1, 3, 0, 4, 6)
    with pytest.raises(ValueError, match='one mask of the frame size for each frame and agent'):
        light(frames, masks[:, :2], there)
    with pytest.raises(ValueError, match='top_k must be at least 1'):
        AgentStream(dict(type='BEVMemoryNetwork', in_channels=3), top_k=0)
    with pytest.raises(ValueError, match='adapter=False takes 3 channels, got 5'):
        AgentStream(dict(type='ImageMemoryNetwork', in_channels=5, adapter=False, bev_shape=SHAPE))


def test_masks_cover_cells_and_pixels_find_their_place(light):
    mask = torch.zeros(1, *SHAPE)
    mask[0, :8, :4] = 1
    shares = light.cover(mask)
    assert shares.shape == (1, 4, 6) and float(shares[0, 0, 0]) == 0.5 and float(shares.sum()) == 0.5
    assert light.place(torch.tensor([[0.0, 0.0], [24.0, 32.0]]), SHAPE).tolist() == [[-1, -1], [0, 1]]
    padded = AgentStream(dict(type='ImageMemoryNetwork', in_channels=3, bev_shape=(28, 44), key_dim=8, value_dim=16,
                              hidden_dim=4))
    assert padded.place(torch.tensor([[-2.0, -2.0], [22.0, 14.0]]), (28, 44)).tolist() == [[-1, -1], [0, 0]]
    assert padded.cover(torch.ones(1, 28, 44)).shape == (1, 2, 3)
