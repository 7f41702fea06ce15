"""The encodings' benchmark measures what it says: every case reads, and plain attention is plain."""

import pytest
import torch
import torch.nn.functional as F

from projects.benchmarks import encodings
from projects.benchmarks.encodings import CASES, Case, build, inputs_of, measure_encodings


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('training', [False, True])
def test_every_case_reads(name, training):
    case = Case(name, training, queries=5, size=(2, 3))
    read, plain = build(case)(), F.scaled_dot_product_attention(*inputs_of(case))
    assert read.shape == (1, 8, 5, 32) and read.isfinite().all() and read.requires_grad == training
    assert torch.equal(read, plain) == (name == 'plain attention')


def test_rows_are_relative_to_plain_attention_with_its_inputs(monkeypatch):
    monkeypatch.setattr(encodings, 'build', lambda case: lambda: None)
    monkeypatch.setattr(encodings, 'peak_bytes', lambda small, call: 1_000_000)
    rows = measure_encodings(1)
    assert [row.name for row in rows] == [*CASES, 'plain attention', 'PRoPE', 'PoseALiBi, factored']
    given = (900 + 2 * 6 * 704) * 8 * 32 * 4 / 1e6
    assert {row.relative_to for row in rows} == {'plain attention'}
    assert rows[1].note == f'forward; {given + 1:.1f} MB with inputs (1.00x)'
