"""ImageMemoryNetwork: the published XMem behind an adapter, on a BEV that does not divide by 16."""

import pytest
import torch
from mmdet3d.registry import MODELS

from projects.memfusion.memory import ImageMemoryNetwork
from projects.memfusion.structures import SceneFeatures

RANGE = (-10.0, -20.0, -5.0, 10.0, 20.0, 3.0)


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return ImageMemoryNetwork(in_channels=6, bev_shape=(40, 20), key_dim=8, value_dim=16, hidden_dim=4).eval()


def test_the_padded_grid_covers_whole_memory_cells_and_keeps_the_cell_size(network):
    assert network.map_shape((40, 20)) == (3, 2) and network.mask_shape((40, 20)) == (48, 32)
    # 8 rows and 12 columns of 1 m are added, half on each side.
    assert network.map_range(RANGE) == (-16.0, -24.0, -5.0, 16.0, 24.0, 3.0)
    maps = torch.rand(1, 2, 40, 20)
    assert torch.equal(network.crop(network.pad(maps)), maps)
    with pytest.raises(ValueError, match='built for'):
        network.map_shape((41, 20))


@torch.no_grad()
def test_it_asks_and_answers_as_xmem_does(network):
    bev, mask = torch.rand(2, 6, 40, 20), torch.rand(2, 1, 48, 32)
    sensory, read = torch.rand(2, 1, 4, 3, 2), torch.rand(2, 1, 16, 3, 2)
    query = network.encode_query(bev)
    frame = torch.nn.functional.pad(network.adapter(bev), (6, 6, 4, 4))
    key, shrinkage, selection, f16, f8, f4 = network.xmem.encode_key(frame)
    assert torch.equal(query.key, key) and torch.equal(query.shrinkage, shrinkage)
    decoded, logits, updated = network.decode(query, read, sensory)
    expected = network.xmem.segment(f16, f8, f4, read, sensory)
    assert torch.equal(updated, expected[0]) and torch.equal(logits, expected[1])
    assert decoded.shape == (2, 256, 40, 20)
    value, deep = network.encode_value(query, mask, sensory)
    assert torch.equal(value, network.xmem.encode_value(frame, f16, sensory, mask, deep_update=True)[0])
    assert (deep - sensory).abs().max() > 1e-4


def test_batch_norms_stay_as_published_in_training(network):
    network.train()
    before = network.xmem.key_encoder.bn1.running_mean.clone()
    network.encode_query(torch.rand(1, 6, 40, 20))
    assert torch.equal(network.xmem.key_encoder.bn1.running_mean, before)
    network.eval()


def test_the_official_checkpoint_loads_strictly_and_another_one_does_not(network, tmp_path):
    torch.save(network.xmem.state_dict(), tmp_path / 'XMem.pth')
    made = ImageMemoryNetwork(6, (40, 20), 8, 16, 4, checkpoint=str(tmp_path / 'XMem.pth'))
    assert all(torch.equal(a, b) for a, b in zip(made.xmem.state_dict().values(), network.xmem.state_dict().values()))
    other = MODELS.build(dict(type='BEVMemoryNetwork', in_channels=6, feature_dim=16))
    torch.save(other.state_dict(), tmp_path / 'bev.pth')
    with pytest.raises(ValueError, match='bev.pth'):
        ImageMemoryNetwork(6, (40, 20), 8, 16, 4, checkpoint=str(tmp_path / 'bev.pth'))


@torch.no_grad()
def test_in_the_slot_with_a_padded_grid_a_static_world_stays_in_place(frame, pose):
    """Two frames, the second one 16 m (a memory cell) ahead: what was written is read at its new place."""
    torch.manual_seed(1)
    slot = MODELS.build(dict(
        type='TemporalMemory', point_cloud_range=RANGE,
        readout=dict(type='ResidualReadout'), loss_occ=dict(type='OccupancyLoss'),
        network=dict(type='ImageMemoryNetwork', in_channels=6, bev_shape=(40, 20), key_dim=8, value_dim=16, hidden_dim=4)))
    slot.eval()
    bev = torch.rand(1, 6, 40, 20)
    memory = slot.init_state(SceneFeatures(bev))
    first = frame(0, pose())
    readout = slot.read(slot.align(memory, first), SceneFeatures(bev), first)
    memory = slot.write(memory, readout, None, first)
    second = frame(1, pose(y=16.0))
    moved = slot.align(memory, second)
    assert torch.allclose(moved.sensory[..., :2, :], memory.sensory[..., 1:, :], atol=1e-4)  # x right, y along H
    assert torch.allclose(moved.mask[..., :32, :], memory.mask[..., 16:, :], atol=1e-4)


@torch.no_grad()
def test_a_motion_gate_compares_what_the_query_saw(frame, pose):
    torch.manual_seed(0)
    temporal = MODELS.build(dict(
        type='TemporalMemory', point_cloud_range=RANGE, readout=dict(type='GateReadout'), loss_occ=dict(type='OccupancyLoss'),
        network=dict(type='ImageMemoryNetwork', in_channels=6, bev_shape=(40, 20), key_dim=8, value_dim=16, hidden_dim=4),
        motion_gate=dict(cues=('difference',)))).eval()
    bev = torch.rand(1, 6, 40, 20)
    memory = temporal.init_state(SceneFeatures(bev))
    for index in range(2):
        frames = frame(index, pose())
        aligned = temporal.align(memory, frames)
        readout = temporal.read(aligned, SceneFeatures(bev), frames)
        memory = temporal.write(aligned, readout, None, frames)
    assert memory.feature.shape == (1, 1024, 3, 2) and torch.isfinite(readout.bev).all()
