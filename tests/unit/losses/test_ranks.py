"""What distributed training asks of every stage."""

import math

import torch
from torch import nn

from projects.memfusion.losses.ranks import tied_to, zero_from, zero_of


def test_zero_is_zero_whatever_the_tensors_hold():
    a, b = torch.tensor([1.0, torch.inf, torch.nan], requires_grad=True), torch.ones(2, 2, requires_grad=True)
    zero = zero_from([a, torch.ones(1), b])
    (zero * torch.inf).backward()
    assert zero.detach() == 0 and torch.equal(a.grad, torch.zeros(3)) and torch.equal(b.grad, torch.zeros(2, 2))
    assert zero_from([]) == 0 and zero_from([torch.ones(2)]) == 0


def test_zero_of_modules_reaches_all_that_is_trained_and_nothing_else():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    module.weight.data[0] = torch.inf
    (zero_of(module, None) + module.weight[1].sum()).backward()
    assert torch.equal(module.weight.grad, torch.tensor([[0.0, 0.0], [1.0, 1.0]])) and module.bias.grad is None


def test_what_is_tied_keeps_its_numbers_and_gives_the_others_a_gradient_of_zero():
    kept, broken = torch.randn(3, requires_grad=True), torch.full((2,), math.inf, requires_grad=True)
    tied = tied_to(kept, [broken, torch.ones(1)])
    assert tied.data_ptr() == kept.data_ptr() and torch.equal(tied, kept)
    (tied * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert kept.grad.tolist() == [1.0, 2.0, 3.0] and broken.grad.tolist() == [0.0, 0.0]
    fixed = torch.randn(3)
    assert tied_to(fixed, []) is fixed
    tied_to(fixed, [broken]).sum().backward()
    assert broken.grad.tolist() == [0.0, 0.0]
