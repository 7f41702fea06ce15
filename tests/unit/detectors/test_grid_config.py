"""model.grid is written once: what it fills keeps what the cells can find, and what says less is refused."""

import copy

import pytest
import torch
from mmdet3d.models.task_modules.coders import CenterPointBBoxCoder

from projects.geometry import BEVGrid
from projects.memfusion.detectors.grid_config import fill_grid

KEYS = dict(pts_bbox_head=('bbox_coder', 'post_center_range'), test_cfg=('pts', 'post_center_limit_range'))


def filled(reach_m, **said):
    """The head's and test_cfg's parts, filled from a grid of +-reach_m."""
    grid = BEVGrid([-reach_m, -reach_m, -5.0, reach_m, reach_m, 3.0], [0.2, 0.2, 8.0], 4)
    parts = dict(pts_bbox_head=dict(type='InitCenterHead', bbox_coder=dict(max_num=10, code_size=9)), test_cfg=dict(pts={}))
    for part, value in said.items():
        parts[part][KEYS[part][0]][KEYS[part][1]] = value
    parts = copy.deepcopy(parts)
    fill_grid(grid, **parts)
    return parts


@pytest.mark.parametrize(('reach_m', 'wanted_m'), [(51.2, 61.2), (102.4, 112.4)])
def test_decoding_ranges_follow_the_grid(reach_m, wanted_m):
    parts = filled(reach_m)
    wanted = [-wanted_m, -wanted_m, -10.0, wanted_m, wanted_m, 10.0]  # of +-51.2 m: the published numbers
    assert parts['pts_bbox_head']['bbox_coder']['post_center_range'] == pytest.approx(wanted, abs=1e-9)
    assert parts['test_cfg']['pts']['post_center_limit_range'] == pytest.approx(wanted, abs=1e-9)


def test_peaks_at_70_and_90_m_survive_decoding():
    coder = CenterPointBBoxCoder(**filled(102.4)['pts_bbox_head']['bbox_coder'])
    heat = torch.zeros(1, 1, 256, 256)
    for x_m in (-90.0, 70.0, 90.0):
        heat[0, 0, 128, int((x_m + 102.4) / 0.8)] = 0.9
    one, two = torch.zeros(1, 1, 256, 256), torch.zeros(1, 2, 256, 256)
    boxes = coder.decode(heat, one, one + 1, one, torch.ones(1, 3, 256, 256), two)[0]
    found = boxes['bboxes'][boxes['scores'] > 0.5][:, 0]
    assert sorted(found.tolist()) == pytest.approx([-90.0, 70.0, 90.0], abs=0.81)  # to a cell


@pytest.mark.parametrize('part', KEYS)
def test_a_narrower_range_is_refused_and_a_wider_one_kept(part):
    with pytest.raises(ValueError, match=KEYS[part][1] + r'=.*is narrower than model.grid.point_cloud_range'):
        filled(102.4, **{part: [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]})
    with pytest.raises(ValueError, match='is narrower'):  # on one side
        filled(51.2, **{part: [-61.2, -61.2, -10.0, 61.2, 50.0, 10.0]})
    wide = [-70.0, -70.0, -10.0, 70.0, 70.0, 10.0]
    assert filled(51.2, **{part: wide})[part][KEYS[part][0]][KEYS[part][1]] == wide


def test_no_limit_may_stay_no_limit():
    assert filled(51.2, test_cfg=[])['test_cfg']['pts']['post_center_limit_range'] == []
