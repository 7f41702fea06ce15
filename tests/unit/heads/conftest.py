"""Shared by the heads' tests: a rig of pinholes, labelled frames, and a stand-in for two ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.memfusion.heads import center_head, image_center_head
from projects.memfusion.losses import ranks
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.image_labels import ImageLabels


@pytest.fixture
def make_rig():
    """make_rig(V, sizes=[(h, w), ...], focal): V frames of pinholes without augmentation."""

    def make(frames: int, sizes=((64, 96), (64, 96)), focal: float = 100.0) -> Calibration:
        k = np.array([[focal, 0, 48], [0, focal, 32], [0, 0, 1.0]])
        images = {f'CAM_{i}': dict(cam2img=k, lidar2cam=np.eye(4), height=h, width=w) for i, (h, w) in enumerate(sizes)}
        return Calibration.cat([Calibration.from_info(images) for _ in range(frames)])

    return make


@pytest.fixture
def make_labels():
    """make_labels([[u0, v0, u1, v1, class, depth], ...], sem_seg)."""

    def make(rows=(), sem_seg=None) -> ImageLabels:
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
        return ImageLabels(boxes_px=table[:, :4], labels=table[:, 4].long(), depth_m=table[:, 5], sem_seg=sem_seg)

    return make


@pytest.fixture
def make_sample():
    """make_sample(image_labels, boxes (G, 9), labels): a frame with both kinds of truth."""

    def make(image_labels=None, boxes=(), labels=()) -> Det3DDataSample:
        sample = Det3DDataSample(metainfo=dict(sample_token='frame'))
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 9), box_dim=9),
            labels_3d=torch.tensor(labels, dtype=torch.int64))
        if image_labels is not None:
            sample.set_field(tuple(image_labels), 'gt_img_labels')
        return sample

    return make


@pytest.fixture
def on_two_ranks(monkeypatch):
    """on_two_ranks(a, b): what two ranks would get from the functions, the collectives meeting in order of their calls."""

    def run(*functions: Callable[[], dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        seen: list[list[torch.Tensor]] = [[], []]
        for module in (ranks, center_head, image_center_head):
            monkeypatch.setattr(module, 'get_world_size', lambda: 2)
        results = []
        for meeting in (False, True):
            results = []
            for rank, function in enumerate(functions):
                calls = [0]

                def all_reduce(value, op, rank=rank, calls=calls, meeting=meeting):
                    assert op == 'mean'
                    if meeting:
                        value.copy_((seen[0][calls[0]] + seen[1][calls[0]]) / 2)
                    else:
                        seen[rank].append(value.clone())
                    calls[0] += 1

                monkeypatch.setattr(ranks, 'all_reduce', all_reduce)
                results.append(function())
            assert len(seen[0]) == len(seen[1]) == 1  # all normalisers of a loss in one collective
        monkeypatch.undo()
        return results

    return run


@pytest.fixture
def assert_all_gradients():
    """Every parameter of the module has a finite gradient after the sum of losses is differentiated."""

    def check(module, losses) -> None:
        module.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

    return check
