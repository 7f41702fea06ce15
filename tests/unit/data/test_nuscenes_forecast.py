"""Agents to be predicted: against the devkit's helper and the infos' boxes, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, TASK_UTILS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from nuscenes.map_expansion.map_api import NuScenesMap
from nuscenes.prediction.helper import convert_local_coords_to_global

from projects.memfusion.data.agent_packing import pack_agents
from projects.memfusion.data.agent_tracks import build_tracks
from projects.memfusion.data.errors import DataError
from projects.memfusion.data.forecast_preprocessor import ForecastDataPreprocessor
from projects.memfusion.data.nuscenes_forecast import NuScenesForecastDataset
from projects.memfusion.data.prediction_tables import SPLIT_FILE, prediction_helper, prediction_tokens
from projects.memfusion.data.transforms.bev_rasters import RasterizePoints
from projects.memfusion.data.transforms.map_rasters import RasterizeMap, place_raster

VERSION = 'v1.0-trainval'


def built(repo, root, split='val', **changes):
    cfg = Config.fromfile(repo / 'configs/_base_/datasets/synthetic_forecast.py')
    loader = cfg.train_dataloader if split == 'train' else cfg.test_dataloader
    return DATASETS.build({**loader.dataset, 'data_root': f'{root}/', **changes})


@pytest.fixture(scope='module')
def dataset(repo, forecast_root):
    return built(repo, forecast_root)


@pytest.fixture(scope='module')
def helper(forecast_root):
    return prediction_helper(str(forecast_root), VERSION)


def test_the_metric_is_given_the_tables_that_the_data_set_has_read(forecast_root, helper):
    for root in (forecast_root, f'{forecast_root}/'):
        assert TASK_UTILS.build(dict(type='prediction_helper', data_root=str(root), version=VERSION)) is helper


def agents_of(dataset, index):
    return dataset[index][-1]['inputs']['agents']


def test_past_future_and_motion_are_the_devkits(dataset, helper):
    """The devkit gives past rows newest first and leaves out what is not there; NaN is 0, as in its physics models."""
    short = 0
    for index in range(len(dataset)):
        agents = agents_of(dataset, index)
        for a, token in enumerate(agents.tokens[0]):
            instance, sample = token.split('_')
            past = helper.get_past_for_agent(instance, sample, 2.0, in_agent_frame=True)
            history = agents.history_xy[0, a].flip(0).numpy()
            assert agents.history_valid[0, a].tolist() == [False] * (4 - len(past)) + [True] * (len(past) + 1)
            np.testing.assert_allclose(history[0], 0, atol=1e-9)
            np.testing.assert_allclose(history[1:len(past) + 1], past.reshape(-1, 2), atol=1e-9)
            future = helper.get_future_for_agent(instance, sample, 6.0, in_agent_frame=True)
            np.testing.assert_allclose(agents.future_xy[0, a], future, atol=1e-9)
            assert bool(agents.future_valid[0, a].all())
            motion = [getattr(helper, f'get_{name}_for_agent')(instance, sample)
                      for name in ('velocity', 'acceleration', 'heading_change_rate')]
            expected = [0.0 if np.isnan(value) else value for value in motion]
            np.testing.assert_allclose(agents.kinematics[0, a, -1, 2:5], expected, atol=1e-12)
            np.testing.assert_allclose(agents.kinematics[0, a, -1, 5:], [0, 1, 1], atol=1e-12)
            short += len(past) == 0
            record = helper.get_sample_annotation(instance, sample)
            everywhere = torch.cat([agents.future_xy[0, a], torch.zeros(12, 1), torch.ones(12, 1)], dim=1)
            np.testing.assert_allclose(
                (everywhere @ agents.global_from_agent[0, a].T)[:, :2],
                convert_local_coords_to_global(future, record['translation'], record['rotation']), atol=1e-8)
    assert short > 0 and sum(len(rows) for rows in dataset.agent_rows) == len(dataset.tokens)


def test_motion_of_the_first_frames_looks_at_nothing_before_the_history(dataset):
    agents = agents_of(dataset, len(dataset) - 1)
    whole = agents.history_valid[0].all(dim=1)
    assert bool(whole.any())
    kinematics = agents.kinematics[0, whole]
    assert not kinematics[:, 0, :5].any() and not kinematics[:, 1, 3].any()
    steps = agents.history_xy[0, whole].diff(dim=1)
    torch.testing.assert_close(kinematics[:, 1:, :2], steps)
    torch.testing.assert_close(kinematics[:, 1:, 2], steps.norm(dim=-1) / 0.5)


def test_boxes_are_those_of_the_infos_and_of_earlier_frames_moved(dataset):
    """The present frame's are mmdet3d's own boxes; earlier ones went through the poses of both frames."""
    index = len(dataset) - 1
    agents, end = agents_of(dataset, index), int(dataset.clip_ends[index])
    info = dataset.get_data_info(end)
    of_instance = {instance['instance_token']: instance['bbox_3d'] for instance in info['instances']}
    earlier = {instance['instance_token']: instance['bbox_3d'] for instance in dataset.get_data_info(end - 2)['instances']}
    now_from_then = np.linalg.inv(info['global_from_lidar']) @ dataset.get_data_info(end - 2)['global_from_lidar']
    for a, token in enumerate(agents.tokens[0]):
        instance = token.split('_')[0]
        found = agents.boxes[0, a, -1].numpy()
        expected = np.array(of_instance[instance])
        middle = found[:3] + [0, 0, found[5] / 2]
        np.testing.assert_allclose(middle, expected[:3], atol=2e-3)
        np.testing.assert_allclose(found[3:6], expected[3:6], atol=1e-6)
        # mmdet3d's yaw is that of the turned quaternion, ours of the heading turned; the LiDAR is tilted by 1.4 degrees
        assert abs((found[6] - expected[6] + np.pi) % (2 * np.pi) - np.pi) < 2e-3
        if agents.history_valid[0, a, -3] and instance in earlier:
            then = agents.boxes[0, a, -3].numpy()
            moved = now_from_then @ np.array([*earlier[instance][:3], 1.0])
            np.testing.assert_allclose(then[:3] + [0, 0, then[5] / 2], moved[:3], atol=5e-3)


def test_clips_stay_in_their_scene_and_what_lies_before_is_padding(dataset):
    first = dataset[0]
    assert [frame['data_samples'].metainfo['frame_valid'] for frame in first] == [False] * 4 + [True]
    assert all(not frame['inputs']['raster'].any() for frame in first[:4]) and first[-1]['inputs']['raster'].any()
    for index in (0, 2, len(dataset) - 1):
        frames = dataset[index]
        assert len({frame['data_samples'].metainfo['scene_token'] for frame in frames}) == 1
        stamps = [frame['data_samples'].metainfo['timestamp_s'] for frame in frames
                  if frame['data_samples'].metainfo['frame_valid']]
        np.testing.assert_allclose(np.diff(stamps), 0.5)
        assert all(frame['inputs']['agents'] is None for frame in frames[:-1])


def test_batch_is_its_items_padded(dataset):
    items = [dataset[0], dataset[len(dataset) - 1]]
    batch = ForecastDataPreprocessor()(pseudo_collate(items), training=True)['inputs']
    agents, counts = batch['agents'], [len(agents_of(dataset, i).tokens[0]) for i in (0, len(dataset) - 1)]
    assert agents.valid.sum(dim=1).tolist() == counts and batch['clip_shape'] == (2, 5)
    for b, item in enumerate(items):
        torch.testing.assert_close(batch['rasters'][b], torch.stack([frame['inputs']['raster'] for frame in item]))
        torch.testing.assert_close(agents.boxes[b, :counts[b]], item[-1]['inputs']['agents'].boxes[0])
    with pytest.raises(ValueError, match='NuScenesForecastDataset'):
        ForecastDataPreprocessor()({'inputs': {}, 'data_samples': [items[0][-1]['data_samples']]})


@pytest.mark.parametrize('mirror', [1.0, -1.0])
def test_augmentation_moves_masks_and_mirrors_agents_but_not_the_world(dataset, mirror):
    index, angle, scale = len(dataset) - 1, 0.4, 1.05
    cos, sin = np.cos(angle), np.sin(angle)
    bev_aug = np.eye(4)
    bev_aug[:3, :3] = scale * np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag([mirror, 1, 1])
    tracks = dataset.tracks.rows(dataset.agent_rows[index])
    pose = np.linalg.inv(dataset.get_data_info(int(dataset.clip_ends[index]))['global_from_lidar'])
    plain, moved = pack_agents(tracks, pose, np.eye(4)), pack_agents(tracks, pose, bev_aug)
    linear = torch.from_numpy(bev_aug[:2, :2])
    torch.testing.assert_close(moved.boxes[..., :2], plain.boxes[..., :2] @ linear.T)
    headings = [torch.stack([agents.boxes[..., 6].cos(), agents.boxes[..., 6].sin()], dim=-1)[agents.history_valid]
                for agents in (plain, moved)]
    torch.testing.assert_close(headings[1], headings[0] @ linear.T / scale)
    torch.testing.assert_close(moved.future_xy, plain.future_xy * torch.tensor([scale * mirror, scale]))
    torch.testing.assert_close(moved.kinematics[..., 4:6], plain.kinematics[..., 4:6] * mirror)

    def in_the_world(agents):
        points = torch.cat([agents.future_xy, torch.tensor([0.0, 1.0]).expand_as(agents.future_xy)], dim=-1)
        return torch.einsum('baij,bakj->baki', agents.global_from_agent, points)

    torch.testing.assert_close(in_the_world(moved), in_the_world(plain))


def test_another_map_frame_changes_nothing_but_where_the_agents_are(dataset):
    index = len(dataset) - 1
    tracks = dataset.tracks.rows(dataset.agent_rows[index])
    pose = np.linalg.inv(dataset.get_data_info(int(dataset.clip_ends[index]))['global_from_lidar'])
    moved, angle = np.eye(4), 2.5
    moved[:2, :2], moved[:2, 3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], (700.0, -90.0)
    elsewhere = replace(tracks, center=tracks.center @ moved[:3, :3].T + moved[:3, 3], yaw=tracks.yaw + angle,
                        future=tracks.future @ moved[:2, :2].T + moved[:2, 3])
    here, there = pack_agents(tracks, pose, np.eye(4)), pack_agents(elsewhere, pose @ np.linalg.inv(moved), np.eye(4))
    for name, tensor in here.tensors().items():
        if name != 'global_from_agent':
            torch.testing.assert_close(there.tensors()[name], tensor, atol=1e-8, rtol=0)
    torch.testing.assert_close(there.global_from_agent, torch.from_numpy(moved) @ here.global_from_agent, atol=1e-8, rtol=0)


def test_raster_by_hand():
    points = torch.tensor([[0.1, 0.1, 0.0, 51.0], [0.2, 0.3, 1.0, 153.0], [-1.9, 1.9, -0.9, 255.0], [5.0, 0, 0, 255],
                           [0, 0, 9, 255]])
    transform = RasterizePoints([-2, -2, -1, 2, 2, 3], (4, 8))
    raster = transform({'points': type('P', (), {'tensor': points})})['raster']
    assert raster.shape == (3, 4, 8) and raster.dtype == np.float32
    expected = np.zeros((3, 4, 8))
    expected[:, 2, 4] = np.log(3) / np.log(17), 0.5, 0.4
    expected[:, 3, 0] = np.log(2) / np.log(17), 0.025, 1.0
    np.testing.assert_allclose(raster, expected, atol=1e-6)
    with pytest.raises(DataError, match='s-1.*LoadLidarPoints'):
        transform({'token': 's-1'})
    for bad in (dict(point_cloud_range=[0] * 6), dict(shape=(0, 4)), dict(max_intensity=0)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RasterizePoints(**{**dict(point_cloud_range=[-2, -2, -1, 2, 2, 3], shape=(4, 8)), **bad})


def test_what_does_not_move_stays_in_its_cells(repo, forecast_root):
    """Rasters of a clip of a driving or standing ego share the cells of walls and parked cars."""
    frames = built(repo, forecast_root, 'train')[3]
    masks = [frame['inputs']['raster'][1] > 0.4 for frame in frames if frame['data_samples'].metainfo['frame_valid']]
    assert len(masks) >= 2 and (masks[0] & masks[-1]).sum() > 0.3 * masks[-1].sum() > 5


# -- what is refused ----------------------------------------------------------------------------------------------------
def test_tokens_and_splits_that_are_not_there_are_named(repo, forecast_root, dataset, helper):
    token = prediction_tokens(str(forecast_root), 'train')[0]
    with pytest.raises(ValueError, match=f"{token} is not in split 'val'"):
        built(repo, forecast_root, tokens=[token])
    with pytest.raises(ValueError, match="train_val.*'test'"):
        prediction_tokens(str(forecast_root), 'test')
    with pytest.raises(DataError, match=f'{SPLIT_FILE}.*mini_val'):
        prediction_tokens(str(forecast_root), 'mini_val')
    with pytest.raises(DataError, match='no annotation of instance aa in sample bb'):
        build_tracks(helper, ['aa_bb'], 5, progress=False)
    with pytest.raises(DataError, match="'aabb' is not instance_sample"):
        build_tracks(helper, ['aabb'], 5, progress=False)
    with pytest.raises(DataError, match='nuscenes_infos_val.pkl has no sample .*train_val'):
        built(repo, forecast_root, split='train', ann_file='nuscenes_infos_val.pkl')
    one = built(repo, forecast_root, tokens=dataset.tokens[-1:])
    assert len(one) == 1 and agents_of(one, 0).tokens == ((dataset.tokens[-1],),)


def test_files_of_splits_that_are_missing_or_broken_are_named(tmp_path):
    with pytest.raises(DataError, match=f'{tmp_path}/{SPLIT_FILE}.*map expansion'):
        prediction_tokens(str(tmp_path), 'val')
    (tmp_path / 'maps/prediction').mkdir(parents=True)
    for content in ('{', '[]'):
        (tmp_path / SPLIT_FILE).write_text(content)
        with pytest.raises(DataError, match=SPLIT_FILE):
            prediction_tokens(str(tmp_path), 'val')
    (tmp_path / SPLIT_FILE).write_text(json.dumps({'scene-0003': ['a_b']}))
    assert prediction_tokens(str(tmp_path), 'val') == ['a_b']


@pytest.mark.parametrize('bad', [dict(seq_len=3), dict(history_frames=0), dict(on_bad_frame='drop')])
def test_arguments_that_cannot_go_with_forecasting(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        NuScenesForecastDataset('nowhere', 'none.pkl', **bad)


# -- the map ------------------------------------------------------------------------------------------------------------
def with_map(repo, root):
    cfg = Config.fromfile(repo / 'configs/_base_/datasets/synthetic_forecast_map.py')
    return DATASETS.build({**cfg.test_dataloader.dataset, 'data_root': f'{root}/'})


def test_map_channel_is_the_drivable_area_under_the_cells(repo, forecast_root, dataset):
    drawn = with_map(repo, forecast_root)
    frame, plain = drawn[len(drawn) - 1][-1], dataset[len(dataset) - 1][-1]
    raster = frame['inputs']['raster'].numpy()
    np.testing.assert_array_equal(raster[:2], plain['inputs']['raster'][:2])
    assert np.isin(np.unique(np.round(raster[2] * 255)), np.arange(256)).all() and raster[2].max() > 0.9
    the_map = NuScenesMap(str(forecast_root), next(iter(drawn.places.values())))
    pose, rng = frame['data_samples'].metainfo['global_from_lidar'], np.random.default_rng(0)
    right = checked = 0
    for row, column in rng.integers(60, 196, (60, 2)):
        x, y, _ = (pose @ [(column + 0.5) * 0.4 - 51.2, (row + 0.5) * 0.4 - 51.2, 0, 1])[:3]
        near = raster[2, row - 1:row + 2, column - 1:column + 2] > 0.25
        if near.all() or not near.any():  # not on an edge
            right += bool(the_map.record_on_point(x, y, 'drivable_area')) == bool(near.any())
            checked += 1
    assert checked > 30 and right == checked
    boxes = frame['inputs']['agents'].boxes[0, :, -1, :2].numpy()
    cells = np.floor((boxes + 51.2) / 0.4).astype(int)
    inside = ((cells >= 1) & (cells < 255)).all(axis=1)
    assert inside.any() and all(raster[2, y, x] > 0.4 for x, y in cells[inside])


def test_maps_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match="'synthetic-town'.*boston-seaport"):
        place_raster(str(tmp_path), 'synthetic-town', 0.4)
    with pytest.raises(DataError, match=f'{tmp_path}/maps/expansion/boston-seaport.json.*map expansion'):
        place_raster(str(tmp_path), 'boston-seaport', 0.4)
    (tmp_path / 'maps/expansion').mkdir(parents=True)
    (tmp_path / 'maps/expansion/boston-seaport.json').write_text('{"version": "1.3"}')
    with pytest.raises(DataError, match='boston-seaport.json is not a map'):
        place_raster(str(tmp_path), 'boston-seaport', 0.4)
    transform = RasterizeMap([-2, -2, -1, 2, 2, 3], (4, 8))
    with pytest.raises(DataError, match='s-1.*RasterizePoints'):
        transform({'token': 's-1'})
    with pytest.raises(DataError, match='s-1.*NuScenesForecastDataset'):
        transform({'token': 's-1', 'raster': np.zeros((3, 4, 8), np.float32)})
    for bad in (dict(channel=3), dict(resolution_m=0)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RasterizeMap([-2, -2, -1, 2, 2, 3], (4, 8), **bad)


def test_boxes_of_all_frames_go_into_each_frames_own_image(repo, forecast_root, dataset):
    """An earlier frame's box, in the last frame's coordinates, through that frame's calibration: where the devkit puts it."""
    cfg = Config.fromfile(repo / 'configs/_base_/datasets/synthetic_forecast_camera.py')
    whole = [step for step in cfg.forecast_pipeline if step['type'] != 'ResizeImages']
    cameras = DATASETS.build({**cfg.test_dataloader.dataset, 'data_root': f'{forecast_root}/', 'pipeline': whole})
    nusc, seen = prediction_helper(str(forecast_root), VERSION).data, 0
    frames = cameras[len(cameras) - 1]
    agents = frames[-1]['inputs']['agents']
    torch.testing.assert_close(agents.boxes, agents_of(dataset, len(dataset) - 1).boxes)
    for h in (1, 4):
        sample = nusc.get('sample', frames[h]['data_samples'].metainfo['sample_token'])
        path, boxes, matrix = nusc.get_sample_data(sample['data']['CAM_FRONT'])
        calibration = frames[h]['inputs']['cameras'].calibration
        for a, token in enumerate(agents.tokens[0]):
            instance = token.split('_')[0]
            box = next((box for box in boxes if nusc.get('sample_annotation', box.token)['instance_token'] == instance), None)
            if box is None or box.center[2] < 3 or not agents.history_valid[0, a, h]:
                continue
            middle = agents.boxes[0, a, h, :3] + torch.tensor([0, 0, 1.0]) * agents.boxes[0, a, h, 5] / 2
            found = calibration.project(middle[None, None].float())[0][0, 0, 0]
            np.testing.assert_allclose(found, (matrix @ box.center)[:2] / box.center[2], atol=0.02)
            seen += 1
    assert seen >= 2
