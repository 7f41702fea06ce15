"""Piece by piece is as all at once, gradients too."""

import pytest
import torch
from torch import nn

from projects.encodings.pieces import in_pieces


@pytest.mark.parametrize('size', [1, 3, 7, 50])
def test_pieces_are_as_the_whole(size):
    torch.manual_seed(0)
    layer, x, weight = nn.Linear(4, 5), torch.randn(2, 7, 4, requires_grad=True), torch.rand(2, 7, 1)

    def make(rows, share):
        return layer(rows).relu() * share

    def gradients(made):
        made.square().sum().backward()
        found = [part.grad.clone() for part in (x, *layer.parameters())]
        for part in (x, *layer.parameters()):
            part.grad = None
        return found

    whole = make(x, weight)
    with torch.no_grad():
        torch.testing.assert_close(in_pieces(make, [x, weight], 1, size), whole)
    pieces = in_pieces(make, [x, weight], 1, size)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(gradients(pieces), gradients(whole))


def test_nothing_is_made_of_nothing():
    with torch.no_grad():
        assert in_pieces(lambda rows: rows[..., :1], [torch.zeros(2, 0, 4)], 1, 3).shape == (2, 0, 1)
    assert in_pieces(lambda rows: rows[..., :1], [torch.zeros(2, 0, 4)], 1, 3).shape == (2, 0, 1)
