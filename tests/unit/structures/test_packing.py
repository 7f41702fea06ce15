"""Unit: frames and rigs cross processes as one tensor and are pinned as one block."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from projects.memfusion.structures import Calibration, CameraFrame
from projects.memfusion.structures.packing import pack, unpack

SIZES = ((20, 33), (20, 33), (7, 5))


def frame(number: int = 0) -> CameraFrame:
    """Three cameras, one of a lens and one that is missing; images of odd sizes."""
    info = {f'CAM_{i}': dict(cam2img=[[30.0 + number, 0, 16], [0, 30, 10], [0, 0, 1]], lidar2cam=np.eye(4), height=height,
                             width=width, timestamp=1532402927.5 + number + i)
            for i, (height, width) in enumerate(SIZES)}
    info['CAM_1']['distortion'] = dict(model='radtan', coefficients=[-0.1, 0.02, 0.0, 0.001])
    rig = replace(Calibration.from_info(info), cam_valid=torch.tensor([[True, True, False]]), padded_hw=(32, 64))
    generator = torch.Generator().manual_seed(number)
    return CameraFrame(tuple(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES), rig)


def assert_same(found: CameraFrame, expected: CameraFrame) -> None:
    ours, theirs = ([*one.images, *one.calibration.tensors] for one in (found, expected))
    assert len(ours) == len(theirs) == 17
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    assert found.calibration.cam_names == expected.calibration.cam_names
    assert found.calibration.padded_hw == expected.calibration.padded_hw
    assert found.calibration.facts == expected.calibration.facts


def storages(one: CameraFrame) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in [*one.images, *one.calibration.tensors]}


def test_packed_tensors_come_back_whatever_they_are() -> None:
    tensors = [torch.tensor(1.5, dtype=torch.float64), torch.zeros(0, 3), torch.tensor([True, False, True]),
               torch.arange(5), torch.arange(6.0).view(2, 3).T, torch.tensor([[float('nan')]]), torch.ones(3).half()]
    buffer, layout = pack(tensors)
    assert buffer.dtype == torch.uint8 and buffer.numel() % 16 == 0
    for ours, theirs in zip(unpack(buffer, layout), tensors):
        assert ours.dtype == theirs.dtype and torch.equal(ours.nan_to_num(7), theirs.nan_to_num(7))
        assert ours.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr()
    with pytest.raises(ValueError, match='detach it first'):
        pack([torch.ones(2, requires_grad=True)])


def test_pickles_and_copies_are_the_same_and_of_their_own() -> None:
    one = frame()
    assert one.calibration.facts and one.calibration.views()
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        assert_same(other, one)
        assert not storages(other) & storages(one) and len(storages(other)) == 1
        other.calibration.cam_valid[:] = False
        assert one.calibration.cam_valid.any()


def test_a_frame_leaves_a_loading_process_as_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = multiprocessing.get_context('fork').Value('i', 0)

    def counting(tensor: torch.Tensor) -> tuple:
        with tensors.get_lock():
            tensors.value += 1
        return reduce_tensor(tensor)

    monkeypatch.setitem(ForkingPickler._extra_reducers, torch.Tensor, counting)
    loader = DataLoader(range(4), batch_size=2, num_workers=1, multiprocessing_context='fork',
                        collate_fn=lambda numbers: [frame(number) for number in numbers])
    batches = list(loader)
    assert tensors.value == 4
    for number, found in enumerate(found for batch in batches for found in batch):
        assert_same(found, frame(number))


def test_a_loader_pins_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    one, pinned = frame(), []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    with monkeypatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setattr(torch.Tensor, 'pin_memory', pin)
        found = pin_memory({'inputs': {'cameras': [one]}, 'rig': one.calibration})
    assert_same(found['inputs']['cameras'][0], one)
    rig = found['rig']
    assert isinstance(rig, Calibration) and torch.equal(rig.img_from_cam, one.calibration.img_from_cam)
    if torch.cuda.is_available():
        assert all(tensor.is_pinned() for tensor in [*found['inputs']['cameras'][0].images, *rig.tensors])
    else:
        blocks = [block.untyped_storage().data_ptr() for block in pinned]
        assert [storages(found['inputs']['cameras'][0]), {t.untyped_storage().data_ptr() for t in rig.tensors}] == [
            {block} for block in blocks]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_rig_goes_to_the_gpu_and_back() -> None:
    rig = frame().calibration
    there = rig.to('cuda')
    assert all(tensor.is_cuda for tensor in there.tensors) and there.facts == rig.facts
    for ours, theirs in zip(there.to('cpu').tensors, rig.tensors):
        assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    points = 5 * torch.randn(1, 50, 3)
    assert (there.project(points.cuda())[0].cpu() - rig.project(points)[0]).abs().max() < 1e-2
