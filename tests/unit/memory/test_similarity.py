"""read_memory against the formula written out, in float64."""

import math

import pytest
import torch
from sync_counts import counting

from projects.memfusion.memory.similarity import affinity_of, read_memory


def direct_read(qk, qe, mk, ms, mv, top_k=None, valid=None):
    """The published formula, element by element over n and m, without the expansion."""
    distance = (qe[:, :, None, :] * (mk[:, :, :, None] - qk[:, :, None, :]) ** 2).sum(1)  # B, N, M
    similarity = -ms.transpose(1, 2) * distance / math.sqrt(qk.shape[1])
    if valid is not None:
        similarity = similarity.masked_fill(~valid[:, :, None], -torch.inf)
    if top_k is not None:
        kept = torch.zeros_like(similarity, dtype=torch.bool)
        kept.scatter_(1, similarity.topk(min(top_k, similarity.shape[1]), dim=1).indices, True)
        similarity = similarity.masked_fill(~kept, -torch.inf)
    affinity = similarity.softmax(dim=1)
    return mv @ affinity, affinity.sum(-1)


def inputs(batch=2, key_dim=16, value_dim=8, elements=70, queries=300, seed=0):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return (draw(batch, key_dim, queries), draw(batch, key_dim, queries).sigmoid(), draw(batch, key_dim, elements),
            draw(batch, 1, elements) ** 2 + 1, draw(batch, value_dim, elements))


@pytest.mark.parametrize('top_k', [None, 1, 7, 500])
def test_equals_the_formula(top_k):
    args = inputs()
    valid = torch.rand(2, 70, generator=torch.Generator().manual_seed(1)) > 0.3
    expected, expected_usage = direct_read(*args, top_k=top_k, valid=valid)
    readout, usage = read_memory(*(a.float() for a in args), top_k=top_k, memory_valid=valid, return_usage=True)
    assert (readout - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (usage - expected_usage).abs().max() < 1e-4
    assert usage[~valid].abs().max() == 0


@pytest.mark.parametrize('top_k', [None, 7])
@pytest.mark.parametrize('count_usage', [False, True])
def test_gradients_are_those_of_the_formula(top_k, count_usage):
    valid = torch.rand(2, 70, generator=torch.Generator().manual_seed(1)) > 0.3
    found = []
    for read, dtype in ((direct_read, torch.float64), (read_memory, torch.float32)):
        args = [a.to(dtype).requires_grad_() for a in inputs()]
        if read is direct_read:
            readout = read(*args, top_k=top_k, valid=valid)[0]
        else:
            readout = read(*args, top_k=top_k, memory_valid=valid, return_usage=count_usage)
            readout = readout[0] if count_usage else readout
        (readout * torch.linspace(-1, 1, 300, dtype=dtype)).sum().backward()
        found.append([a.grad for a in args])
    for expected, grad in zip(*found, strict=True):
        assert (grad - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize('top_k, count_usage', [(None, False), (7, True)])
def test_no_affinity_of_all_queries_is_kept_for_the_backward_pass(top_k, count_usage):
    elements, queries = 600, 1000
    args = [a.float().requires_grad_() for a in inputs(batch=1, elements=elements, queries=queries)]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        read_memory(*args, top_k=top_k, return_usage=count_usage)
    given = 4 * (queries + elements) * (2 * 16 + 8 + 1)
    assert given < sum(kept.values()) < 5 * given < 4 * queries * elements


def test_the_host_is_asked_once_at_most_and_not_where_it_knows():
    args = [a.float() for a in inputs()]
    valid = torch.arange(70) < torch.tensor([[30], [20]])
    with counting() as counts:
        expected = read_memory(*args, memory_valid=valid)
    assert counts.total == 1, counts
    with counting() as counts:
        found = read_memory(*args, memory_valid=valid, num_valid=(30, 20))
    assert counts.total == 0, counts
    assert torch.equal(found, expected)


def test_nothing_valid_reads_exactly_zero_and_keeps_gradients_finite():
    args = [a.float().requires_grad_() for a in inputs()]
    valid = torch.zeros(2, 70, dtype=torch.bool)
    valid[1] = True
    readout = read_memory(*args, memory_valid=valid)
    assert (readout[0] == 0).all() and (readout[1] != 0).all()
    readout.sum().backward()
    for arg in args:
        assert torch.isfinite(arg.grad).all() and (arg.grad[0] == 0).all()


def test_empty_memory_is_legal():
    qk, qe, mk, ms, mv = (a.float() for a in inputs())
    readout, usage = read_memory(qk, qe, mk[..., :0], ms[..., :0], mv[..., :0], return_usage=True)
    assert readout.shape == (2, 8, 300) and (readout == 0).all() and usage.shape == (2, 0)


def test_batch_equals_single():
    args = [a.float() for a in inputs(batch=4)]
    together = read_memory(*args)
    alone = torch.cat([read_memory(*(a[i:i + 1] for a in args)) for i in range(4)])
    assert (together - alone).abs().max() < 1e-6


def test_runs_in_float32_under_autocast():
    args = [a.float() for a in inputs()]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = read_memory(*args)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, read_memory(*args))


def test_bad_arguments_name_what_is_wrong():
    args = [a.float() for a in inputs()]
    with pytest.raises(ValueError, match='top_k'):
        read_memory(*args, top_k=0)
    with pytest.raises(ValueError, match='memory_shrinkage'):
        read_memory(args[0], args[1], args[2], args[3][..., :5], args[4])


def test_elements_that_hold_nothing_change_nothing_wherever_they_are():
    """Empty slots have no pose: their positions, kilometres away, must not cost the others their digits."""
    qk, qe, mk, ms, mv = inputs(batch=1)
    expected, _ = direct_read(qk, qe, mk, ms, mv)
    far = torch.full_like(mk[..., :40], 1e4)
    args = (qk, qe, torch.cat([far, mk], 2), torch.cat([0 * ms[..., :40], ms], 2), torch.cat([0 * mv[..., :40], mv], 2))
    valid = torch.arange(110)[None] >= 40
    readout = read_memory(*(a.float() for a in args), memory_valid=valid)
    assert (readout - expected).abs().max() < 1e-5 * expected.abs().max()


def test_keys_far_from_zero_keep_their_digits():
    """Positions are part of the keys; the expanded square must not lose small differences of great numbers."""
    qk, qe, mk, ms, mv = inputs(batch=1)
    expected, _ = direct_read(qk + 300, qe, mk + 300, ms, mv)
    readout = read_memory(*(a.float() for a in (qk + 300, qe, mk + 300, ms, mv)))
    assert (readout - expected).abs().max() < 1e-3 * expected.abs().max()  # float32 itself has 3e-5 at 300


def test_a_sample_reads_the_same_whatever_else_its_batch_holds():
    args = [a.float() for a in inputs(batch=2)]
    valid = torch.ones(2, 70, dtype=torch.bool)
    valid[0, :50] = False
    args[2][0, :, :50] = 500.0
    both = read_memory(*args, memory_valid=valid)
    alone = read_memory(*(a[:1, ..., 50:] if i > 1 else a[:1] for i, a in enumerate(args)))
    assert (both[0] - alone[0]).abs().max() < 3e-6  # kernels for other sizes: 2e-7


def test_the_weights_shown_are_those_read_with():
    args = [a.float() for a in inputs()]
    valid = torch.rand(2, 70, generator=torch.Generator().manual_seed(1)) > 0.3
    for top_k in (None, 4):
        affinity = affinity_of(*args[:4], top_k=top_k, memory_valid=valid)
        expected = torch.einsum('bmn,bcn->bcm', affinity, args[4])
        assert (read_memory(*args, top_k=top_k, memory_valid=valid) - expected).abs().max() < 1e-5
        assert (affinity.sum(-1) - 1).abs().max() < 1e-5 and affinity.transpose(1, 2)[~valid].abs().max() == 0


def test_where_one_element_answers_alone_its_similarity_has_no_gradient():
    g = torch.Generator().manual_seed(0)
    memory_key = torch.randn(1, 4, 50, generator=g) * 1e3
    query_key = (memory_key[..., :30] + 1.0).requires_grad_()
    read = read_memory(query_key, torch.ones(1, 4, 30), memory_key, torch.ones(1, 1, 50), torch.randn(1, 3, 50, generator=g))
    read.square().sum().backward()
    assert query_key.grad.abs().max() == 0
