"""Leaves of a design with cameras alone and with LiDAR beside them differ in what the LiDAR brings, and in nothing else."""

from pathlib import Path

import pytest
from mmengine.config import Config

QUERY = Path(__file__).resolve().parents[3] / 'configs' / 'query'
TWINS = [('petrv2_r50_256x704_8xb1-cosine-24e_nus-3d', 'petrv2_r50_pillar02_second_secfpn_8xb1-cosine-24e_nus-3d'),
         ('sparsebev_r50_fpn_8xb1-cosine-24e_nus-3d', 'sparsebev_r50_pillar02_second_secfpn_8xb1-cosine-24e_nus-3d'),
         ('streampetr_r50_256x704_8xb2-cosine-24e_nus-3d', 'streampetr_r50_pillar02_second_secfpn_8xb2-cosine-24e_nus-3d'),
         ('cmt-camera_r50_256x704_8xb2-cyclic-20e_nus-3d', 'cmt_r50_256x704_8xb4-cyclic-20e_nus-3d'),
         *((f'{name}_r18_fpn_tiny-synthetic', f'{name.removesuffix("-camera")}_r18_pillar04_second_secfpn_tiny-synthetic')
           for name in ('petrv2', 'sparsebev', 'streampetr', 'cmt-camera'))]
OF_LIDAR = {'bev', 'bev_tokens', 'bev_channels', 'bev_stride', 'masked_modal'}
STATED = {'num_depths': 64}
"""Defaults that one of them writes out."""


def without_lidar(settings):
    return {name: without_lidar(value) if isinstance(value, dict) else value for name, value in settings.items()
            if name not in OF_LIDAR and STATED.get(name) != value}


@pytest.mark.parametrize('cameras, both', TWINS, ids=[name for name, _ in TWINS])
def test_twins(cameras, both):
    one, other = (Config.fromfile(QUERY / f'{name}.py') for name in (cameras, both))
    for part in ('pts_bbox_head', 'img_backbone', 'img_neck', 'temporal', 'grid'):
        assert without_lidar(one.model.get(part) or {}) == without_lidar(other.model.get(part) or {}), part
    frames = [config.auto_scale_lr.base_batch_size for config in (one, other)]
    rates = [config.optim_wrapper.optimizer.lr / count for config, count in zip((one, other), frames)]
    assert rates[0] == pytest.approx(rates[1])  # for each frame of a step
    assert one.optim_wrapper.get('paramwise_cfg') == other.optim_wrapper.get('paramwise_cfg')
