"""A copying detector on the nano world, of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from projects.memfusion.runtime import init_registry, prepare_config

NARROW = """
_base_ = ['{repo}/configs/temporal/copy_pillar04_second_secfpn_tiny-synthetic.py']
model = dict(
    grid=dict(voxel_size=[0.8, 0.8, 8.0]),
    pts_voxel_encoder=dict(feat_channels=[16]),
    pts_middle_encoder=dict(in_channels=16),
    pts_backbone=dict(in_channels=16, out_channels=[16, 16, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[16, 16, 16], out_channels=[16, 16, 16]),
    pts_bbox_head=dict(in_channels=48, share_conv_channel=16, separate_head=dict(head_conv=16)),
    temporal=dict(in_channels=48, value_dim=8, mix_dim=8, num_slots=2, long_term=True))
test_dataloader = dict(dataset=dict(data_root='{root}/'))
"""


@pytest.fixture(scope='session')
def copying(repo: Path, nano_infos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A narrow copying detector on the nano world, and a checkpoint of random weights, whose gate is open."""
    folder = tmp_path_factory.mktemp('copying')
    config, checkpoint = folder / 'nano.py', folder / 'random.pth'
    config.write_text(NARROW.format(repo=repo, root=nano_infos_root))
    from mmdet3d.registry import MODELS
    init_registry()
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(prepare_config(config).model).state_dict()), checkpoint)
    return config, checkpoint
