"""A small detector, and what the GPU tests do with it on a device: a training step, a streamed scene, a step of a rank.

    python tests/gpu/steps.py BACKEND DEVICE RANK WORLD_SIZE PORT OUT    # one rank's training step; its gradients go to OUT
"""

from __future__ import annotations

import sys
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

REPO = Path(__file__).resolve().parents[2]
CONFIG = 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'


def build(device: str) -> nn.Module:
    """Reproducible weights, none of which is zero; in eval mode."""
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import projects.memfusion.register  # noqa: F401
    sys.path.append(str(REPO / 'tests'))  # a rank runs this file by itself
    from small_models import MEMORY, SMALL
    init_default_scope('mmdet3d')
    config = Config.fromfile(REPO / CONFIG)
    config.merge_from_dict(dict(model={**SMALL, **MEMORY}))
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(model.state_dict().items()):
        if value.dtype.is_floating_point and 'log_locality' not in name:
            noise = torch.rand(value.shape, generator=generator) * 0.2
            value.add_(noise if 'var' in name else noise - 0.1)
    return model.to(device).eval()


def frame(scene: str, index: int) -> dict:
    """A packed frame of random points and boxes."""
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
    from mmengine.structures import InstanceData

    g = torch.Generator().manual_seed(zlib.crc32(f'{scene}:{index}'.encode()))
    cloud = torch.rand(600, 5, generator=g) * torch.tensor([50.0, 50, 4, 255, 0.5]) - torch.tensor([25.0, 25, 3, 0, 0])
    boxes = torch.rand(8, 9, generator=g) * torch.tensor([40.0, 40, 1, 3, 1, 1, 6, 2, 2]) \
        + torch.tensor([-20.0, -20, -1.5, 2, 1, 1.5, 0, -1, -1])
    pose = np.eye(4)
    pose[:3, 3] = [2.0 * index, 0.0, 0.0]
    sample = Det3DDataSample(metainfo=dict(
        sample_idx=index, sample_token=f'{scene}-{index}', scene_token=scene, frame_index=index, is_scene_start=index == 0,
        is_scene_end=False, timestamp_s=1.5e9 + 0.5 * index, global_from_lidar=pose, bev_aug=np.eye(4), is_keyframe=True,
        frame_valid=True, box_type_3d=LiDARInstance3DBoxes))
    sample.gt_instances_3d = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9),
                                          labels_3d=torch.randint(0, 10, (8,), generator=g))
    return dict(inputs=dict(points=cloud), data_samples=sample)


def collated(model: nn.Module, clips: list[list[dict]], training: bool) -> dict:
    from mmengine.dataset import pseudo_collate
    return model.data_preprocessor(pseudo_collate(clips), training)


def training_step(model: nn.Module, scenes: str, dtype: torch.dtype | None = None, wrapped: nn.Module | None = None,
                  scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Losses and gradients of clips of two frames, one of each scene, on the CPU; `dtype` is that of autocast.

    BatchNorm keeps its statistics, so that a batch is its samples.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    model.zero_grad()
    device = next(model.parameters()).device.type
    data = collated(model, [[frame(scene, index) for index in range(2)] for scene in scenes], True)
    with nullcontext() if dtype is None else torch.autocast(device, dtype=dtype):
        losses = (wrapped or model)(**data, mode='loss')
    total, logged = model.parse_losses(losses)
    (scale * total).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {**{name: value.detach().cpu() for name, value in logged.items()},
            **{name: gradient.cpu() / scale for name, gradient in gradients.items()}}


@torch.no_grad()
def streamed(model: nn.Module, frames: int = 3) -> list[torch.Tensor]:
    """What the head saw in each frame of two scenes, on the CPU."""
    seen: list[torch.Tensor] = []
    hook = model.pts_bbox_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].float().cpu()))
    model.eval().session.clear()
    for index in range(frames):
        model(**collated(model, [[frame(scene, index)] for scene in 'ab'], False), mode='predict')
    hook.remove()
    return seen


def step_of_rank(backend: str, device: str, rank: int, world_size: int, port: int) -> dict[str, torch.Tensor]:
    """The gradients that DistributedDataParallel gives rank `rank`, whose batch is scene number `rank`."""
    from torch.nn.parallel import DistributedDataParallel

    if device != 'cpu':
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=world_size)
    model = build(device)
    wrapped = DistributedDataParallel(model, device_ids=None if device == 'cpu' else [torch.device(device).index])
    found = training_step(model, 'ab'[rank], wrapped=wrapped)
    torch.distributed.destroy_process_group()
    return found


if __name__ == '__main__':
    sys.path.insert(0, str(REPO))
    name, where, place, size, at, out = sys.argv[1:]
    torch.save(step_of_rank(name, where, int(place), int(size), int(at)), out)
