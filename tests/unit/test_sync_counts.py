"""The counter of waits: what it counts, once each, and where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sync_counts import OURS, counting

X = torch.arange(16.0).view(4, 4) + torch.eye(4)
MASK = X > 5
ONE = torch.tensor(1)


@pytest.mark.parametrize('name, call', [
    ('item', lambda: X.sum().item()), ('__bool__', lambda: bool(MASK.any())), ('__bool__', lambda: 1 if MASK.any() else 2),
    ('__int__', lambda: int(ONE)), ('__float__', lambda: float(ONE)), ('__index__', lambda: X[:ONE]),
    ('tolist', lambda: X.tolist()), ('numpy', lambda: X.numpy()),
    ('__array__', lambda: np.asarray(X)), ('cpu', lambda: X.cpu()),
    ('_local_scalar_dense', lambda: X[ONE]), ('index', lambda: X[MASK]),
    ('index_put_', lambda: X.clone().__setitem__(MASK, 0.0)),
    ('nonzero', lambda: torch.where(MASK)), ('nonzero', lambda: MASK.nonzero()),
    ('masked_select', lambda: X.masked_select(MASK)),
    ('_unique2', lambda: torch.unique(X)), ('linalg_inv_ex', lambda: torch.linalg.inv(X)),
    ('linalg_inv_ex', lambda: torch.inverse(X)), ('_linalg_check_errors', lambda: torch.linalg.cholesky(torch.eye(2))),
    ('repeat_interleave', lambda: X.repeat_interleave(torch.tensor([1, 2, 1, 2]), dim=0)), ('equal', lambda: torch.equal(X, X)),
])
def test_what_waits_is_counted_once(name, call):
    with counting() as counts:
        call()
    assert [what for what, _ in counts.waits.elements()] == [name], counts


@pytest.mark.parametrize('call', [
    lambda: X[torch.tensor([1, 2])], lambda: X.masked_fill(MASK, 0), lambda: torch.where(MASK, X, 0), lambda: X[1],
    lambda: X.repeat_interleave(torch.tensor([1, 2, 1, 2]), dim=0, output_size=6), lambda: X.repeat_interleave(2, dim=0),
    lambda: X.shape[0] + len(X), lambda: X.to(torch.float64)])
def test_what_does_not_wait_is_not_counted(call):
    with counting() as counts:
        call()
    assert counts.total == 0, counts


def test_waits_in_the_backward_pass():
    x = X.clone().requires_grad_()
    picked = x[MASK]
    with counting() as counts:
        picked.sum().backward()
    assert counts.total == 1 and 'index_put' in repr(counts)


def test_uploads_of_pythons_values_and_the_scalars_in_them():
    with counting() as counts:
        X.new_tensor([1.0, 2.0])
        torch.tensor([X[0, 0], X[0, 1]], device='cpu')
        torch.as_tensor(X, device='cpu')
        torch.tensor([1.0])
    assert sum(counts.uploads.values()) == 2 and counts.total == 2


def test_the_line_is_ours():
    scope = {}
    exec(compile('def ask(how):\n    return how()', f'{OURS}geometry/asking.py', 'exec'), scope)
    with counting() as counts:
        scope['ask'](ONE.item)
        scope['ask'](lambda: np.asarray(X))  # below us, in another file
        ONE.item()
    assert {place.rsplit(':')[0] for _, place in counts.waits} == {'geometry/asking.py', 'test_sync_counts.py'}
    assert {place for (_, place), times in counts.waits.items() if 'asking' in place} == {'geometry/asking.py:2 ask'}


class Model:
    def step(self, times):
        self.decode()
        return [ONE.item() for _ in range(times)]

    def decode(self):
        return X.tolist()


def test_parts_are_kept_apart_and_calls_counted_one_by_one():
    model = Model()
    with counting() as counts, counts.keep_apart(model, 'decode'), counts.only_in(model, 'step') as calls:
        model.step(2)
        ONE.item()
        model.step(3)
    assert calls == [2, 3] and counts.total == 5 and sum(counts.apart.values()) == 2
    assert vars(model) == {}


def test_torch_is_given_back_as_it_was():
    before = [dict(vars(torch.Tensor)), torch.tensor, torch.as_tensor]
    with pytest.raises(RuntimeError), counting():
        assert torch.tensor is not before[1]
        raise RuntimeError
    assert [dict(vars(torch.Tensor)), torch.tensor, torch.as_tensor] == before
