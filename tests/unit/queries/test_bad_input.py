"""What does not fit a query head is refused by the name of its setting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from projects.memfusion.queries.boxes import DecodeSettings
from projects.memfusion.queries.image_tokens import level_at
from projects.memfusion.queries.petrv2_head import PETRv2
from projects.memfusion.queries.sparsebev_head import SparseBEVHead
from projects.memfusion.structures import FrameMeta, Readout, SceneFeatures

RANGE = [-8.0, -8.0, -5.0, 8.0, 8.0, 3.0]


def test_levels_that_there_are_not_or_of_another_width():
    levels = (torch.zeros(1, 2, 8, 4, 4), torch.zeros(1, 2, 6, 2, 2))
    assert level_at(levels, -1, 6, 'head') is levels[1]
    with pytest.raises(ValueError, match=r'head.level=2, but img_neck gives 2 levels'):
        level_at(levels, 2, 8, 'head')
    with pytest.raises(ValueError, match=r'head.level=0, but img_neck gives 0 levels'):
        level_at(None, 0, 8, 'head')
    with pytest.raises(ValueError, match=r'head is made for 8 channels, but image level 1 has 6: .*out_channels'):
        level_at(levels, 1, 8, 'head')


def test_a_bev_of_another_width():
    small = dict(dim=16, num_layers=1, num_heads=2, ffn_dim=16)
    heads = (PETRv2(2, RANGE, 4, bev=dict(in_channels=6), transformer=small),
             SparseBEVHead(2, RANGE, 4, inputs=dict(num_frames=0, bev_channels=6), transformer=small))
    for head in heads:
        with pytest.raises(ValueError, match='pts_bbox_head is made for a BEV of 6 channels, but it has 5'):
            head(SceneFeatures(bev=torch.zeros(1, 5, 4, 4)), Readout(), None)


def test_no_query_and_half_a_range():
    with pytest.raises(ValueError, match='at least one query, got 0: set num_queries'):
        PETRv2(2, RANGE, 0, bev=dict(in_channels=6))
    with pytest.raises(ValueError, match=r'post_center_range must be x, y, z low and then high, got \[1, 2, 3\]'):
        DecodeSettings([1, 2, 3])


def test_a_frame_without_a_pose():
    known = dict(sample_token='a-0', scene_token='a', frame_index=0, is_scene_start=True, is_scene_end=False, timestamp_s=0.0,
                 global_from_lidar=np.eye(4), bev_aug=np.eye(4), is_keyframe=True, frame_valid=True)
    assert FrameMeta.from_metainfo(known).sample_token == 'a-0'
    with pytest.raises(ValueError, match=r'frame a-0 has no pose: its global_from_lidar must be a \(4, 4\) matrix, got None'):
        FrameMeta.from_metainfo({**known, 'global_from_lidar': None})
    del known['global_from_lidar']
    with pytest.raises(KeyError, match='global_from_lidar'):
        FrameMeta.from_metainfo(known)
