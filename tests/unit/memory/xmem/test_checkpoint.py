"""Official checkpoints load completely or not at all, and what does not fit is named."""

import pytest
import torch

from projects.memfusion.memory import BEVMemoryNetwork
from projects.memfusion.memory.xmem import XMem, load_checkpoint


@pytest.fixture(scope='module')
def small():
    return XMem(key_dim=8, value_dim=16, hidden_dim=4)


def test_round_trip(small, tmp_path):
    torch.manual_seed(0)
    weights = {name: torch.randn_like(value) if value.is_floating_point() else value + 3
               for name, value in small.state_dict().items()}
    torch.save(weights, tmp_path / 'official.pth')
    load_checkpoint(small, str(tmp_path / 'official.pth'))
    assert all(torch.equal(value, weights[name]) for name, value in small.state_dict().items())


def bev_network(small):
    return BEVMemoryNetwork(in_channels=8, key_dim=8, value_dim=16, hidden_dim=8, feature_dim=8).state_dict()


def single_object(small):
    weights = dict(small.state_dict())
    weights['value_encoder.conv1.weight'] = torch.zeros(64, 4, 7, 7)
    return weights


def without_keys(small):
    return {name: value for name, value in small.state_dict().items() if not name.startswith('key_proj')}


def wrapped(small):
    return {'meta': {'epoch': 1}, 'state_dict': small.state_dict()}


@pytest.mark.parametrize('make, parts', [
    (bev_network, ['missing: key_encoder.conv1.weight', 'unexpected: encoder.0', '...']),
    (single_object, ['(64, 4, 7, 7) instead of (64, 5, 7, 7)', 'single-object XMem']),
    (without_keys, ['6 missing: key_proj.key_proj.weight']),
    (wrapped, ['2 unexpected: meta, state_dict']),
    (lambda small: [1, 2], ['holds a list']),
    (lambda small: {'key': slice(3)}, ['cannot be read']),
])
def test_other_files_are_errors_and_change_nothing(small, tmp_path, make, parts):
    path = tmp_path / 'other.pth'
    torch.save(make(small), path)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        load_checkpoint(small, str(path))
    for part in ['other.pth', *parts]:
        assert part in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_files_that_are_no_checkpoints(small, tmp_path):
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    with pytest.raises(ValueError, match='text.pth cannot be read'):
        load_checkpoint(small, str(tmp_path / 'text.pth'))
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        load_checkpoint(small, str(tmp_path / 'absent.pth'))
