"""The samplers on a made room: what they promise, and what buys what."""

import numpy as np
import pytest

from projects.geometry.frame_sampling import FRAME_SAMPLERS, Video, WorldPoints, build_sampler

NAMES = ('uniform', 'sa', 'fps', 'efficient', 'mergeaware_uniform', 'mergeaware_sa')


def sample(name, video, num_frames, **settings):
    return build_sampler(dict(type=name, num_frames=num_frames, **settings))(video)


@pytest.fixture(scope='module')
def reports(room):
    return {(name, count): sample(name, room, count)[1] for name in NAMES for count in (8, 16)}


@pytest.fixture
def stopped():
    """12 frames of which frames 0-5 and 6-11 see the same."""
    rng = np.random.default_rng(0)
    points = np.concatenate([np.tile(rng.uniform(size=(1, 30, 3)), (6, 1, 1)) for _ in range(2)]).astype(np.float32)
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = 0.1 * np.arange(12)
    return Video(12, 'stopped', world_from_cam=poses, visible=WorldPoints(points))


def test_all_rows_of_the_table_are_there():
    assert set(FRAME_SAMPLERS.module_dict) == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_the_same_twice_ascending_and_distinct(name, room):
    first, second = (sample(name, room, 10)[0] for _ in range(2))
    anchors = first[::2] if name.startswith('mergeaware') else first
    assert first.tolist() == second.tolist() and (np.diff(anchors) > 0).all() and len(set(first.tolist())) == 10


@pytest.mark.parametrize('count', [8, 16])
def test_space_aware_buys_coverage_and_destroys_pairs_and_merge_aware_trades_back(reports, count):
    found = {name: (reports[name, count]['coverage'], reports[name, count]['pair_overlap_mean']) for name in NAMES}
    (uniform, _), (sa, sa_pairs), (merged, merged_pairs) = found['uniform'], found['sa'], found['mergeaware_sa']
    half, half_pairs = found['mergeaware_uniform']
    assert sa > uniform + 0.05 and sa_pairs < 0.45  # frames that see the most are unlike each other
    assert merged_pairs > sa_pairs + 0.15 and half_pairs > sa_pairs + 0.3
    assert half < merged < sa and merged > uniform - 0.1
    assert found['efficient'][0] > uniform


def test_report_by_hand():
    points = np.array([[[0, 0, 0], [1, 0, 0]], [[1, 0, 0], [2, 0, 0]], [[3, 0, 0], [3, 0, 0]], [[4, 0, 0], [4, 0, 0]]]) + 0.5
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 1, 3] = [0, 2, 7, 9]
    video = Video(4, stamps_s=np.array([0, 1, 2.5, 4]), world_from_cam=poses, visible=WorldPoints(points, voxel_m=1.0))
    frames, report = sample('uniform', video, 4)
    assert report['stamps_s'] == [0, 1, 2.5, 4]
    assert frames.tolist() == [0, 1, 2, 3] and report['coverage'] == 1 and report['redundancy'] == pytest.approx(1 / 6)
    assert report['neighbour_overlap'] == pytest.approx(1 / 9)
    assert (report['pair_overlap_mean'], report['pair_overlap_min']) == (pytest.approx(1 / 6), 0)
    assert (report['pair_baseline_m_mean'], report['pair_baseline_m_max'], report['pair_angle_deg_max']) == (2, 2, 0)
    assert (report['returned'], report['requested']) == (4, 4) and report['seconds'] >= 0
    _, report = sample('sa', video, 2)
    assert report['coverage'] == pytest.approx(4 / 5) or report['coverage'] == pytest.approx(3 / 5)
    assert report['order'] == [0, 1] and report['gains'] == [2, 1] and report['pair_overlap_min'] == pytest.approx(1 / 3)
    assert sample('uniform', video, 1)[1]['pair_overlap_mean'] is None


def test_early_stop_and_fill(stopped):
    for name in ('sa', 'efficient'):
        frames, report = sample(name, stopped, 5)
        assert len(frames) == report['returned'] == 2 and frames[0] < 6 <= frames[1]
        frames, report = sample(name, stopped, 5, fill=True)
        assert len(set(frames.tolist())) == report['returned'] == 5 and (np.diff(frames) > 0).all()
    assert len(set(sample('sa', stopped, 12, fill=True)[0].tolist())) == 12
    without = Video(12, visible=stopped.visible)
    assert sample('sa', without, 4, fill=True)[0].tolist() == [0, 3, 6, 11]  # k-centre by frame number: 11, then 3


def test_uniform_needs_frames_alone():
    frames, report = sample('uniform', Video(300), 16, form='pool128')
    assert sample('uniform', Video(300), 140, form='pool128', fill=True)[1]['returned'] == 140
    assert frames.tolist()[-2:] == [277, 299] and 'coverage' not in report and 'pair_angle_deg_mean' not in report


def test_a_long_video_is_looked_at_in_its_pool_only(room):
    asked = []

    def visible(frames):
        asked.extend(frames.tolist())
        return room.visible(frames)

    frames, _ = sample('sa', Video(400, visible=visible), 6, pool=20)
    pool = np.linspace(0, 399, 20).astype(int).tolist()
    assert set(asked) == set(pool) and set(frames.tolist()) <= set(pool)


@pytest.mark.parametrize('cfg, video, message', [
    (dict(type='best', num_frames=4), Video(9), "there is no frame sampler 'best'. Known: efficient, fps, mergeaware_sa"),
    (dict(type='sa', num_frames=4, size=1), Video(9), "frame sampler 'sa': .*unexpected keyword argument 'size'"),
    (dict(type='sa', num_frames=0), Video(9), 'num_frames and pool of a frame sampler must be at least 1, got 0 and 128'),
    (dict(type='uniform', num_frames=4, form='even'), Video(9), "form of uniform sampling must be .*, got 'even'"),
    (dict(type='efficient', num_frames=4, candidates=0), Video(9), 'candidates of efficient sampling must be at least 1'),
    (dict(type='mergeaware_sa', num_frames=7), Video(9), 'chooses an even number of frames, got num_frames=7'),
    (dict(type='mergeaware_sa', num_frames=4, pair=dict(delta=0)), Video(9), 'delta of pairs must be at least 1 frame, got 0'),
    (dict(type='uniform', num_frames=16), Video(9, 'a.mp4'), 'a.mp4 has 9 frames, fewer than the 16 that are wanted'),
    (dict(type='sa', num_frames=4), Video(9, 'a.mp4'), 'a.mp4: space-aware sampling needs to know what a frame sees'),
    (dict(type='fps', num_frames=4), Video(9, 'a.mp4'), 'a.mp4: k-centre sampling needs a pose for every frame'),
    (dict(type='efficient', num_frames=4), Video(9, 'a.mp4'), 'a.mp4: efficient sampling needs a pose for every frame'),
    (dict(type='mergeaware_sa', num_frames=4), Video(9, 'a.mp4'), 'a.mp4: a bound on angle or baseline of pairs needs a pose'),
])
def test_what_cannot_be_sampled_is_named(cfg, video, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(cfg)(video)


@pytest.mark.parametrize('fields, message', [
    (dict(num_frames=0), 'a.mp4 has no frames'),
    (dict(num_frames=2, stamps_s=np.array([1.0, 1.0])), 'a.mp4: stamps must be 2 rising numbers'),
    (dict(num_frames=2, world_from_cam=np.eye(4)[None]), r'a.mp4: world_from_cam must be \(2, 4, 4\)'),
    (dict(num_frames=1, world_from_cam=np.full((1, 4, 4), np.nan)), 'a.mp4: world_from_cam of frame 0 is not a rigid'),
    (dict(num_frames=3, visible=WorldPoints(np.zeros((2, 4, 4, 3)))),
     'a.mp4 has 3 frames, but what they see is known of 2'),
])
def test_what_is_no_video_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Video(name='a.mp4', **fields)
