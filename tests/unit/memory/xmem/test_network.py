"""The published network: size, batches of clips, sensory state, precision. tests/unit/test_replay.py holds its numbers."""

import pytest
import torch
import torch.nn.functional as F

from projects.memfusion.memory.xmem import XMem, aggregate


def test_published_number_of_parameters(network):
    assert sum(p.numel() for p in network.parameters()) == 62_185_224


def test_objects_and_clips_do_not_mix(network):
    g = torch.Generator().manual_seed(0)
    frame, masks = torch.randn(2, 3, 48, 64, generator=g), torch.rand(2, 3, 48, 64, generator=g) / 3
    readout, sensory = torch.randn(2, 3, 512, 3, 4, generator=g), torch.randn(2, 3, 64, 3, 4, generator=g)

    def run(frame, masks, readout, sensory):
        with torch.no_grad():
            key, shrinkage, selection, f16, f8, f4 = network.encode_key(frame)
            value, deep = network.encode_value(frame, f16, sensory, masks, deep_update=True)
            new, logits, prob = network.segment(f16, f8, f4, readout, sensory)
        return [key, shrinkage, selection], [value, deep, new, logits, prob[:, 1:]], prob

    of_frame, of_object, prob = run(frame, masks, readout, sensory)
    assert (of_frame[1] >= 1).all() and (of_frame[2] > 0).all() and (of_frame[2] < 1).all()
    assert (prob.sum(1) - 1).abs().max() < 1e-5
    for clip in range(2):
        one = slice(clip, clip + 1)
        single_frame, single_object, _ = run(frame[one], masks[one], readout[one], sensory[one])
        for batched, single in zip(of_frame + of_object, single_frame + single_object, strict=True):
            assert (batched[one] - single).abs().max() < 1e-4 * single.abs().max()
    order = [2, 0, 1]
    _, permuted, _ = run(frame, masks[:, order], readout[:, order], sensory[:, order])
    for before, after in zip(of_object, permuted, strict=True):
        assert (before[:, order] - after).abs().max() < 1e-4 * before.abs().max()
    # The logits are each object's own; its value knows the others' masks, not their order.
    _, changed, _ = run(frame, torch.cat([masks[:, :2], masks[:, 2:] * 2], 1), readout, sensory)
    assert (changed[0][:, 0] - of_object[0][:, 0]).abs().max() > 1e-3


def test_sensory_state_stays_where_no_update_is_asked(network):
    g = torch.Generator().manual_seed(1)
    frame, sensory = torch.randn(1, 3, 32, 32, generator=g), torch.randn(1, 1, 64, 2, 2, generator=g)
    with torch.no_grad():
        *_, f16, f8, f4 = network.encode_key(frame)
        _, after_value = network.encode_value(frame, f16, sensory, torch.ones(1, 1, 32, 32), deep_update=False)
        readout = torch.zeros(1, 1, 512, 2, 2)
        kept, logits, _ = network.segment(f16, f8, f4, readout, sensory, update_sensory=False)
        updated, same_logits, _ = network.segment(f16, f8, f4, readout, sensory, update_sensory=True)
    assert torch.equal(after_value, sensory) and torch.equal(kept, sensory) and torch.equal(logits, same_logits)
    assert (updated - sensory).abs().max() > 0.1


def test_keys_are_projected_in_float32_under_autocast(network):
    frame = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        key, shrinkage, selection, f16, f8, f4 = network.encode_key(frame)
        _, _, prob = network.segment(f16, f8, f4, torch.zeros(1, 2, 512, 2, 2), torch.zeros(1, 2, 64, 2, 2))
    assert f16.dtype == torch.bfloat16 and {key.dtype, shrinkage.dtype, selection.dtype, prob.dtype} == {torch.float32}
    projection = network.key_proj.key_proj
    with torch.no_grad():
        expected = F.conv2d(f16.float(), projection.weight, projection.bias, padding=1)
    assert (key - expected).abs().max() < 1e-5 * expected.abs().max()


def test_aggregate_by_hand():
    # Odds 1 and 1 for the objects; both absent with probability 1/4, odds 1/3: together 7/3.
    prob = aggregate(torch.full((1, 2, 1, 1), 0.5))
    assert torch.allclose(prob.flatten(), torch.tensor([1 / 7, 3 / 7, 3 / 7]), atol=1e-6)
    certain = aggregate(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).half()).flatten()
    assert torch.allclose(certain, torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_wrong_sizes_are_errors(network):
    with pytest.raises(ValueError, match='multiples of 16.*40'):
        network.encode_key(torch.zeros(1, 3, 32, 40))
    with pytest.raises(ValueError, match='value_dim'):
        XMem(value_dim=8)
