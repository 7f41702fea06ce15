"""Clips, padding, seeding, streaming order and collation on the nano world."""

import contextlib
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from projects.memfusion.data import samplers
from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.data.samplers import SceneBatchSampler, SceneSampler
from projects.memfusion.data.seeding import item_seed, seeded

CONFIG = 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'


@pytest.fixture(scope='module')
def build(repo, nano_infos_root):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repo / CONFIG)

    def make(split='train', **changes):
        dataset = copy.deepcopy(cfg[f'{split}_dataloader'].dataset)
        dataset.update(data_root=str(nano_infos_root) + '/', **changes)
        return DATASETS.build(dataset)

    return make


def metas(clip):
    return [frame['data_samples'].metainfo for frame in clip]


def test_clips_never_cross_a_scene_and_pad_its_start(build):
    dataset = build(seq_len=3)
    assert len(dataset) == 10
    for index in range(len(dataset)):
        clip = metas(dataset[index])
        assert len(clip) == 3 and len({m['scene_token'] for m in clip}) == 1
        end = clip[-1]['frame_index']
        assert [m['frame_valid'] for m in clip] == [end - 2 >= 0, end - 1 >= 0, True]
        seen = [m['frame_index'] for m in clip if m['frame_valid']]
        assert seen == list(range(max(0, end - 2), end + 1))
        assert [m['is_scene_start'] for m in clip if m['frame_valid']] == [i == 0 for i in seen]
        assert clip[-1]['is_scene_end'] == (end == 4)
        times = [m['timestamp_s'] for m in clip if m['frame_valid']]
        assert (np.diff(times) > 0.4).all()


def test_stride_and_frame_stride(build):
    dataset = build(seq_len=2, stride=2, frame_stride=2)
    ends = [dataset.frame_indices[e] for e in dataset.clip_ends]
    assert ends == [1, 3, 4] * 2

    assert [m["frame_index"] for m in metas(dataset[1])] == [1, 3]


def test_padding_has_no_points_no_boxes_and_is_left_out_by_the_preprocessor(build, repo):
    clip = build(seq_len=3)[0]
    assert [len(f['inputs']['points']) for f in clip[:2]] == [0, 0] and len(clip[2]['inputs']['points']) > 1000
    assert len(clip[0]['data_samples'].gt_instances_3d) == 0
    model = MODELS.build(Config.fromfile(repo / CONFIG).model)
    out = model.data_preprocessor(pseudo_collate([clip, build(seq_len=3)[4]]), True)
    assert out['inputs']['clip_shape'] == (2, 3)
    assert out['inputs']['frame_valid'] == [False, False, True, True, True, True]
    assert len(out['inputs']['points']) == 4
    assert out['inputs']['voxels']['coors'][:, 0].unique().tolist() == [0, 1, 2, 3]
    tokens = [s.metainfo['frame_index'] for s in out['data_samples']]
    assert tokens[3:] == [2, 3, 4], 'clip-major order'


def test_one_augmentation_per_clip_seeded_by_seed_epoch_and_index(build):
    dataset = build(seq_len=3)
    dataset.set_epoch(0)
    first, again = dataset[4], dataset[4]
    for a, b in zip(first, again):
        assert torch.equal(a['inputs']['points'], b['inputs']['points'])
    augs = [m['bev_aug'] for m in metas(first)]
    assert all(np.array_equal(augs[0], aug) for aug in augs) and not np.allclose(augs[0], np.eye(4))
    assert not np.allclose(augs[0], metas(dataset[3])[-1]['bev_aug'])
    dataset.set_epoch(1)
    assert not np.allclose(augs[0], metas(dataset[4])[-1]['bev_aug'])
    other_seed = build(seq_len=3, seed=1)
    other_seed.set_epoch(0)
    assert not np.allclose(augs[0], metas(other_seed[4])[-1]['bev_aug'])


def test_without_the_hook_augmentation_still_varies(build):
    """A config that replaces custom_hooks must not silently train on one fixed augmentation."""
    dataset = build(seq_len=1)
    assert not np.allclose(metas(dataset[4])[0]['bev_aug'], metas(dataset[4])[0]['bev_aug'])


def test_workers_see_the_epoch_although_they_persist(build):
    dataset = build(seq_len=1)
    loader = torch.utils.data.DataLoader(dataset, num_workers=1, persistent_workers=True, collate_fn=lambda x: x,
                                         sampler=range(2))

    def draw():
        return [metas(batch[0])[0]['bev_aug'] for batch in loader]

    dataset.set_epoch(0)
    zero = draw()
    dataset.set_epoch(1)
    one = draw()
    dataset.set_epoch(0)
    assert np.array_equal(draw(), zero) and not np.allclose(zero, one)


def test_static_points_stay_where_they_are_in_the_global_frame(build):
    """Poses, augmentation and points agree: ground points of neighbouring frames coincide in height after all of it."""
    clip = build(seq_len=2)[4]
    clouds = []
    for frame in clip:
        meta = frame['data_samples'].metainfo
        points = frame['inputs']['points'][:, :3].double().numpy()
        global_from_bev = meta['global_from_lidar'] @ np.linalg.inv(meta['bev_aug'])
        clouds.append(points @ global_from_bev[:3, :3].T + global_from_bev[:3, 3])
    from scipy.spatial import cKDTree
    distance, _ = cKDTree(clouds[0]).query(clouds[1])
    wrong = clouds[1] + [1.0, 1.0, 0.0]
    assert np.median(distance) < 0.5 * np.median(cKDTree(clouds[0]).query(wrong)[0])


@pytest.mark.parametrize('changes, word', [
    (dict(seq_len=0), 'seq_len'), (dict(stride=0), 'stride'), (dict(frame_stride=0), 'frame_stride'),
    (dict(seq_len=6), 'seq_len=6'), (dict(filter_empty_gt=True), 'filter_empty_gt'),
    (dict(on_bad_frame='hide'), 'on_bad_frame'), (dict(metainfo=dict(classes=['car', 'tank'])), 'tank')])
def test_bad_settings_are_named(build, changes, word):
    with pytest.raises(ValueError, match=word):
        build(**changes)


def test_a_broken_frame_is_an_error_or_is_dropped_and_counted(build):
    def broken(self, results):
        if results['frame_index'] == 3:
            raise BadFrameError('x.pcd.bin', 'is truncated', 'fetch it again')
        return original(self, results)

    from projects.memfusion.data.transforms.loading import LoadLidarPoints
    original = LoadLidarPoints.transform
    with mock.patch.object(LoadLidarPoints, 'transform', broken):
        with pytest.raises(BadFrameError, match='x.pcd.bin'):
            build(seq_len=3)[4]
        dropping = build(seq_len=3, on_bad_frame='drop')
        assert [m['frame_valid'] for m in metas(dropping[4])] == [True, False, True]
        assert dropping.num_dropped_frames == 1
        # In testing the frame keeps its place: it still owes a prediction, and the stream goes on.
        testing = build('val', on_bad_frame='drop')
        clip = metas(testing[3])
        assert clip[0]['frame_index'] == 3 and clip[0]['frame_valid'] is False


def test_a_file_cut_at_a_whole_number_of_points_is_noticed(build, tmp_path):
    from projects.memfusion.data.transforms.loading import LoadLidarPoints
    info = build('val').get_data_info(0)
    content = open(info['lidar_path'], 'rb').read()
    cut = tmp_path / 'cut.pcd.bin'
    cut.write_bytes(content[:len(content) // 40 * 20])
    info['lidar_points']['lidar_path'] = str(cut)
    with pytest.raises(BadFrameError, match='cut.pcd.bin is truncated'):
        LoadLidarPoints(load_dim=5, use_dim=5)(info)


def test_nested_seeding_follows_the_outermost():
    with seeded(item_seed(0, 0, 1)):
        a = np.random.rand()
    with seeded(item_seed(0, 0, 1)):
        with seeded(item_seed(0, 0, 2)):
            b = np.random.rand()
    before = np.random.get_state()[1].copy()
    with seeded(5):
        np.random.rand()
    assert a == b and np.array_equal(before, np.random.get_state()[1])


def test_threads_that_seed_do_not_draw_each_others_numbers():
    """Two threads meet after the first number of each, if they can: then both would go on with one generator."""
    meeting = threading.Barrier(2)

    def draw(seed):
        with seeded(seed):
            first = np.random.rand()
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(timeout=0.05)
            return first, np.random.rand()

    expected = [tuple(np.random.RandomState(seed).rand(2)) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(draw, (1, 2))) == expected


def test_scene_sampler_visits_every_frame_once_in_time_order(build):
    dataset = build('val')
    order = list(SceneSampler(dataset))
    assert sorted(order) == list(range(10))
    for scene in SceneSampler(dataset).scenes:
        assert [dataset.frame_indices[i] for i in scene] == [0, 1, 2, 3, 4]


def test_batches_follow_one_scene_per_slot(build):
    train = build('train', test_mode=True)
    sampler = SceneSampler(train)
    for size in (1, 2, 3):
        batches = list(SceneBatchSampler(sampler, size))
        assert sorted(sum(batches, [])) == list(range(10)) and len(batches) == len(SceneBatchSampler(sampler, size))
        assert all(len({train.scene_tokens[i] for i in batch}) == len(batch) <= size for batch in batches)
        seen = {}
        for index in sum(batches, []):
            assert train.frame_indices[index] == seen.get(train.scene_tokens[index], 0)
            seen[train.scene_tokens[index]] = train.frame_indices[index] + 1


def test_ranks_share_whole_scenes_and_one_may_be_empty(build):
    dataset = build('val')
    shares = []
    for rank in range(3):
        with mock.patch.object(samplers, 'get_dist_info', lambda rank=rank: (rank, 3)):
            shares.append(list(SceneSampler(dataset)))
    assert sorted(sum(shares, [])) == list(range(10)) and sorted(map(len, shares)) == [0, 5, 5]
    with pytest.raises(ValueError, match='time order'):
        SceneSampler(dataset, shuffle=True)
