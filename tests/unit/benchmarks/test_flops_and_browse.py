"""Operations against a count by hand; what browsing draws is what the pipeline feeds."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tool_mains import main_of
from torch import nn

from projects.benchmarks.flops import BETWEEN, _count
from projects.demos.browse import browse
from projects.memfusion.runtime import UserError, prepare_config


class Detector(nn.Module):
    """Two slots with layers, one product between them, and one layer that does not run."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
        self.head = nn.ModuleDict(dict(used=nn.Linear(5, 7), unused=nn.Linear(5, 7)))

    def test_step(self, data):
        cells = self.backbone(data).flatten(2).transpose(1, 2)  # (1, 20, 5)
        return self.head['used'](cells @ cells.transpose(1, 2) @ cells)


def test_operations_by_hand():
    flops = _count(Detector().eval(), torch.ones(1, 3, 4, 5))
    conv, linear, products = 2 * 20 * 5 * 3 * 9, 2 * 20 * 5 * 7, 2 * 20 * 20 * 5 * 2
    assert flops == Counter({'backbone': conv, 'head': linear, BETWEEN: products})


def test_browsing_draws_clips_before_and_after(repo, nano_infos_root, tmp_path, capsys):
    root = f'{nano_infos_root}/'
    config = repo / 'configs/fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
    options = [f'train_dataloader.dataset.{option}' for option in (f'data_root={root}', 'seq_len=2', 'stride=2')]
    main_of('browse_dataset')([config, '--out', tmp_path, '--number', 1, '--cfg-options', *options])
    cfg = prepare_config(config, {'val_dataloader.dataset.data_root': root})
    cfg.test_dataloader = None
    drawn = [*map(Path, capsys.readouterr().out.split()[-5:]), *browse(cfg, 'val', tmp_path, 1)]
    views = ('before_bev', 'before_cameras', 'bev', 'cameras')
    assert [path.name for path in drawn] == [f'{name}.png' for name in (
        *(f'train_0000_{view}' for view in (*views, 'clip')), *(f'val_0000_{view}' for view in views))]
    before, after, unchanged, tested = (cv2.imread(str(drawn[row])) for row in (0, 2, 5, 7))
    assert np.abs(before.astype(int) - after).mean() > 1  # turned and scaled
    assert np.abs(unchanged[40:].astype(int) - tested[40:]).mean() < 1  # in testing nothing is, but for the title
    for path in drawn:
        picture = cv2.imread(str(path)).reshape(-1, 3).astype(int)
        # Truth is drawn in green, in testing too, where the pipeline packs none.
        assert np.sum((picture[:, 1] > 180) & (picture[:, 0] < 120) & (picture[:, 2] < 120)) > 500, path.name
    with pytest.raises(UserError, match='--split test: the config has no test_dataloader'):
        next(browse(cfg, 'test', tmp_path, 1))
