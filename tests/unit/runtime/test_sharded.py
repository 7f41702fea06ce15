"""AdamW whose state is shared out: the same steps, with what does not learn beside what does."""

import pytest
import torch
import torch.distributed as dist

from projects.memfusion.runtime.sharded import ShardedAdamW


@pytest.fixture
def one_process():
    """A process group of this process alone."""
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('groups', [False, True])
def test_parts_of_another_dtype_that_do_not_learn_stay(one_process, groups):
    """The configs of the video language model keep a tower in bfloat16 beside weights that learn in float32."""
    tower = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16), requires_grad=False)
    ours, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    given = [dict(params=[tower]), dict(params=[ours], lr=0.1)] if groups else iter([tower, ours])
    sharded, plain = ShardedAdamW(given, lr=0.1, betas=(0.9, 0.95)), torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.95))
    for _ in range(3):
        for weight, optimizer in ((ours, sharded), (theirs, plain)):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
    assert torch.equal(ours, theirs) and torch.equal(tower, torch.ones(3, dtype=torch.bfloat16))
    sharded.consolidate_state_dict(to=0)
    assert len(sharded.state_dict()['state']) == 1
