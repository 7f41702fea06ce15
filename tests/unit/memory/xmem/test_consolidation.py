"""Consolidation and forgetting against the rules written out element by element, in float64."""

import math

import pytest
import torch

from projects.memfusion.memory.consolidation import consolidate, survivors


def draw(batch=3, key_dim=5, objects=2, value_dim=4, candidates=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, key_dim, candidates, generator=g),
            torch.randn(batch, 1, candidates, generator=g).square() + 1,
            torch.randn(batch, key_dim, candidates, generator=g).sigmoid(),
            torch.randn(batch, objects, value_dim, candidates, generator=g),
            torch.rand(batch, candidates, generator=g))


def by_hand(key, shrinkage, selection, value, usage, count, valid):
    """One sample: (CK, N), (N,), (CK, N), (K, CV, N), (N,), bool list -> chosen, and per prototype shrinkage and value."""
    usable = [n for n in range(len(usage)) if valid[n]]
    chosen = sorted(usable, key=lambda n: -usage[n])[:count]
    shrinkages, values = [], []
    for p in chosen:
        weights = [math.exp(-shrinkage[n] / math.sqrt(len(key)) * sum(
            selection[c, p] * (key[c, n] - key[c, p]) ** 2 for c in range(len(key)))) for n in usable]
        total = sum(weights)
        shrinkages.append(sum(w * shrinkage[n] for w, n in zip(weights, usable, strict=True)) / total)
        values.append(sum(w * value[:, :, n] for w, n in zip(weights, usable, strict=True)) / total)
    return chosen, torch.tensor(shrinkages), torch.stack(values, -1)


@pytest.mark.parametrize('with_valid', [False, True])
def test_equals_the_rules(with_valid):
    args = draw()
    valid = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)) > 0.4 if with_valid else None
    made = consolidate(*args, num_prototypes=6, candidate_valid=valid)
    assert made.valid.all()
    for b in range(3):
        key, shrinkage, selection, value, usage = (a[b].double() for a in args)
        chosen, shrinkages, values = by_hand(key, shrinkage[0], selection, value, usage, 6,
                                             [True] * 20 if valid is None else valid[b])
        assert made.indices[b].tolist() == chosen
        assert torch.equal(made.key[b], args[0][b][:, chosen])
        assert (made.shrinkage[b, 0] - shrinkages).abs().max() < 1e-5
        assert (made.value[b] - values).abs().max() < 1e-5


def test_invalid_candidates_are_as_if_they_were_absent():
    args = draw(batch=1)
    valid = torch.arange(20)[None] % 2 == 0
    made = consolidate(*args, num_prototypes=4, candidate_valid=valid)
    alone = consolidate(*[a[..., ::2] for a in args], num_prototypes=4)
    assert torch.equal(made.indices, alone.indices * 2)
    for name in ('key', 'shrinkage', 'value'):
        assert torch.allclose(getattr(made, name), getattr(alone, name), atol=1e-6)


def test_too_few_valid_candidates_leave_empty_prototypes():
    args = draw()
    valid = torch.zeros(3, 20, dtype=torch.bool)
    valid[0, [3, 11]] = True
    valid[2] = True
    made = consolidate(*args, num_prototypes=5, candidate_valid=valid)
    assert made.valid.sum(1).tolist() == [2, 0, 5]
    assert set(made.indices[0, made.valid[0]].tolist()) == {3, 11}
    for tensor in (made.key, made.shrinkage, made.value):
        assert torch.isfinite(tensor).all()
        assert (tensor[1] == 0).all() and (tensor[0, ..., 2:] == 0).all() and (tensor[0, ..., :2] != 0).all()


def test_gradients_reach_what_was_merged():
    args = [a.requires_grad_() for a in draw()]
    made = consolidate(*args, num_prototypes=3, candidate_valid=torch.arange(20).expand(3, 20) < 10)
    (made.value.square().sum() + made.shrinkage.sum()).backward()
    for arg in args[:4]:
        assert torch.isfinite(arg.grad).all() and (arg.grad[..., 10:] == 0).all()
    assert (args[3].grad[..., :10] != 0).all()


def test_survivors_by_hand():
    usage = torch.tensor([[0.1, 0.5, 0.1, 0.3, 0.2]])
    assert survivors(usage, 5).tolist() == [[True] * 5]
    assert survivors(usage, 7).tolist() == [[True] * 5]
    assert survivors(usage, 3).tolist() == [[False, True, False, True, True]]
    assert survivors(usage, 4).tolist() == [[False, True, False, True, True]]  # both that tie as least used go
    assert survivors(usage, 0).tolist() == [[False] * 5]
    assert survivors(torch.zeros(1, 4), 3).tolist() == [[False] * 4]
    assert survivors(torch.zeros(2, 0), 3).shape == (2, 0)


def test_errors_name_the_setting():
    args = draw()
    for count in (0, 21):
        with pytest.raises(ValueError, match=f'num_prototypes={count}'):
            consolidate(*args, num_prototypes=count)
    with pytest.raises(ValueError, match='shapes'):
        consolidate(*args[:4], args[4][:, :-1], num_prototypes=2)
