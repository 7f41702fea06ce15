"""The timed stream is the head with its memory: it fills, changes what is found, and known rigs are told from new ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from projects.benchmarks.streampetr import Case, Stream


def test_a_stream_remembers():
    case = replace(Case().small(), propagated=4, queries=12)
    stream, alone = Stream(case), Stream(replace(case, propagated=0))
    with torch.no_grad():
        found = [stream.step() for _ in range(6)]
        first, second = alone.step(), alone.step()
    assert int(stream.state.there.sum()) == 16  # four frames of four fill the memory
    assert not torch.equal(found[0].logits, found[1].logits)
    assert torch.equal(first.logits, second.logits)


def test_a_new_rig_is_another_one():
    stream = Stream(replace(Case().small(), propagated=0, queries=12, new_rig=True))
    first, second = stream.step(), stream.step()
    assert not torch.equal(first.codes, second.codes)
