"""What only a GPU can show. Runs where there is one: `python -m pytest -m gpu`."""

import pytest
import torch

from projects.memfusion.memory.similarity import _chunked_read, _fused_read, _validity, expand_memory, expand_query

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]


def test_fused_read_equals_the_chunked_one():
    g = torch.Generator(device='cuda').manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, device='cuda')

    query = expand_query(draw(2, 64, 1024), draw(2, 64, 1024).sigmoid()) / 8
    memory = expand_memory(draw(2, 64, 4096), draw(2, 1, 4096) ** 2 + 1)
    value = draw(2, 4096, 128)
    bias, _ = _validity(torch.rand(2, 4096, generator=g, device='cuda') > 0.5, query)
    chunked, _ = _chunked_read(query, memory, value, bias, None)
    assert (_fused_read(query, memory, value, bias) - chunked).abs().max() < 1e-4 * chunked.abs().max()
