"""align='loader': points, boxes and velocities in the last frame's coordinates, against the tables and by hand."""

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes, LiDARPoints
from nuscenes.nuscenes import NuScenes
from scipy.spatial.transform import Rotation

from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.data.transforms import AlignToClipEnd
from projects.memfusion.data.transforms.loading import LoadLidarPoints
from projects.memfusion.structures import FrameMeta


def metas(clip):
    return [frame['data_samples'].metainfo for frame in clip]


def turned():
    """The frame's LiDAR stands 3 m ahead and 4 m to the left of the last one's, 1 m up, turned left by 90 degrees."""
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    matrix[:3, 3] = 3, 4, 1
    return matrix


def frame(**extra):
    # 5 m ahead, bottom at -1; heading half left (45 degrees); drives 2 m/s ahead and 1 m/s left.
    boxes = LiDARInstance3DBoxes(torch.tensor([[5.0, 0, -1, 4, 2, 1.5, np.pi / 4, 2, 1]]), box_dim=9)
    return dict(points=LiDARPoints(torch.tensor([[5.0, 0, 0, 7, 0.1]]), points_dim=5), gt_bboxes_3d=boxes,
                bev_aug=np.eye(4), **extra)


def test_hand_answer():
    out = AlignToClipEnd().transform(frame(clip_end_from_lidar=turned()))
    np.testing.assert_allclose(out['points'].tensor, [[3, 9, 1, 7, 0.1]], atol=1e-6)
    np.testing.assert_allclose(out['gt_bboxes_3d'].tensor,
                               [[3, 9, 0, 4, 2, 1.5, 3 * np.pi / 4, -1, 2]], atol=1e-6)
    np.testing.assert_array_equal(out['bev_aug'], turned())


def test_inert_unless_asked_for():
    out, plain = AlignToClipEnd().transform(frame()), frame()
    assert torch.equal(out['points'].tensor, plain['points'].tensor) and np.array_equal(out['bev_aug'], np.eye(4))
    assert torch.equal(out['gt_bboxes_3d'].tensor, plain['gt_bboxes_3d'].tensor)


def test_a_box_on_a_slope_keeps_its_centre_and_stays_level():
    tilted = np.eye(4)
    tilted[:3, :3] = Rotation.from_euler('y', -30, degrees=True).as_matrix()  # the frame looks up by 30 degrees
    out = AlignToClipEnd().transform(frame(clip_end_from_lidar=tilted))
    # The centre (5, 0, -0.25): the whole matrix; the bottom is half a height under it.
    center = tilted[:3, :3] @ [5, 0, -0.25]
    np.testing.assert_allclose(out['gt_bboxes_3d'].tensor[0, :3], center - [0, 0, 0.75], atol=3e-6)
    heading = tilted[:3, :3] @ [1, 1, 0]
    np.testing.assert_allclose(out['gt_bboxes_3d'].tensor[0, 6], np.arctan2(heading[1], heading[0]), atol=1e-6)
    np.testing.assert_allclose(out['gt_bboxes_3d'].tensor[0, 7:9], (tilted[:3, :3] @ [2, 1, 0])[:2], atol=1e-6)


@pytest.fixture(scope='module')
def nusc(nano_root):
    return NuScenes('v1.0-mini', str(nano_root), verbose=False)


def yaw_off(a, b):
    return np.abs((np.asarray(a) - np.asarray(b) + np.pi) % (2 * np.pi) - np.pi).max()


@pytest.mark.parametrize('arguments', [dict(seq_len=3), dict(seq_len=6, frame_rate='sweep', frame_stride=3)],
                         ids=['keyframes', 'sweeps'])
def test_points_and_boxes_of_every_frame_against_the_tables(clips, tables, nusc, arguments):
    """Truth from global annotations and raw files, moved by inverted poses: none of the loader's own arithmetic."""
    dataset = clips(align='loader', num_sweeps=1, **arguments)
    record_at = {r['timestamp']: r for r in tables.lidar}
    num_boxes = turn = 0
    for index in (2, 4, 8):
        clip = dataset[index]
        last = tables.pose(record_at[round(metas(clip)[-1]['timestamp_s'] * 1e6)])
        for data, meta in zip(clip, metas(clip)):
            if not meta['frame_valid']:
                continue
            record = record_at[round(meta['timestamp_s'] * 1e6)]
            last_from_own = np.linalg.inv(last) @ tables.pose(record)
            raw = tables.points(record).astype(np.float64)
            expected = raw[:, :3] @ last_from_own[:3, :3].T + last_from_own[:3, 3]
            np.testing.assert_allclose(data['inputs']['points'][:, :3], expected, rtol=0, atol=1e-4)
            np.testing.assert_allclose(meta['global_from_lidar'], tables.pose(record), rtol=0, atol=1e-9)
            np.testing.assert_allclose(meta['bev_aug'], last_from_own, rtol=0, atol=1e-6)
            np.testing.assert_allclose(FrameMeta.from_metainfo(meta).global_from_bev, last, rtol=0, atol=1e-6)
            assert meta['clip_aligned'] is True
            turn = max(turn, np.arccos(min(1, (np.trace(last_from_own[:3, :3]) - 1) / 2)))
            boxes = data['data_samples'].gt_instances_3d.bboxes_3d
            if not meta['is_keyframe']:
                assert len(boxes) == 0
                continue
            truth = [nusc.get('sample_annotation', token) for token in nusc.get('sample', meta['sample_token'])['anns']]
            truth = [annotation for annotation in truth if annotation['num_lidar_pts'] + annotation['num_radar_pts']]
            own = dict(level=tables.pose(record)[:3, :3])
            for annotation, box, center in zip(truth, boxes.tensor.numpy(), boxes.gravity_center.numpy(), strict=True):
                np.testing.assert_allclose(center, (np.linalg.inv(last) @ [*annotation['translation'], 1])[:3], atol=1e-3)
                # As in the infos, headings and velocities are first made level in the frame's own coordinates.
                heading = own['level'].T @ Rotation.from_quat(np.roll(annotation['rotation'], -1)).as_matrix()[:, 0]
                moved = last_from_own[:3, :3] @ [heading[0], heading[1], 0]
                assert yaw_off(np.arctan2(moved[1], moved[0]), box[6]) < 2e-3
                velocity = own['level'].T @ np.array([*nusc.box_velocity(annotation['token'])[:2], 0])
                expected = np.nan_to_num(last_from_own[:3, :3] @ [velocity[0], velocity[1], 0])
                np.testing.assert_allclose(box[7:9], expected[:2], atol=1e-3)
                num_boxes += 1
    assert num_boxes > 20 and turn > np.radians(2), 'the nano world must have boxes and a turning ego'


def test_what_stands_still_stands_still(clips, nusc):
    """Parked objects have one place in all frames of an aligned clip, and another where frames are not aligned."""
    spread = {}
    for align in ('loader', 'none'):
        clip = clips(align=align, seq_len=3)[4]
        places = {}
        for data, meta in zip(clip, metas(clip)):
            annotations = [nusc.get('sample_annotation', t) for t in nusc.get('sample', meta['sample_token'])['anns']]
            kept = [a for a in annotations if a['num_lidar_pts'] + a['num_radar_pts']]
            for annotation, center in zip(kept, data['data_samples'].gt_instances_3d.bboxes_3d.gravity_center, strict=True):
                places.setdefault(annotation['instance_token'], []).append((annotation['translation'], center.numpy()))
        still = [np.ptp([c for _, c in seen], axis=0).max() for seen in places.values()
                 if len(seen) == 3 and np.ptp([t for t, _ in seen], axis=0).max() == 0]
        assert len(still) >= 3
        spread[align] = max(still)
    assert spread['loader'] < 1e-3 < 0.5 < spread['none']


def test_one_augmentation_after_alignment(clips):
    plain = clips(align='loader', seq_len=3, num_sweeps=1)
    moved = clips(align='loader', seq_len=3, num_sweeps=1, augment=True)
    moved.set_epoch(0)
    for index in (0, 4):
        a, b = plain[index], moved[index]
        poses = [FrameMeta.from_metainfo(m).global_from_bev for m in metas(b) if m['frame_valid']]
        assert np.abs(np.stack(poses) - poses[0]).max() < 1e-6
        valid = [place for place, m in enumerate(metas(a)) if m['frame_valid']]
        clip_aug = metas(b)[-1]['bev_aug']
        assert not np.allclose(clip_aug, np.eye(4))
        for place in valid:
            np.testing.assert_allclose(metas(b)[place]['bev_aug'], clip_aug @ metas(a)[place]['bev_aug'], atol=1e-9)
            points = a[place]['inputs']['points'][:, :3].double().numpy() @ clip_aug[:3, :3].T + clip_aug[:3, 3]
            np.testing.assert_allclose(b[place]['inputs']['points'][:, :3], points, rtol=0, atol=1e-4)


def test_padding_and_dropped_frames_say_that_they_are_aligned(clips, monkeypatch):
    start = metas(clips(align='loader', seq_len=3)[0])
    assert [m['frame_valid'] for m in start] == [False, False, True]
    assert [m['clip_aligned'] for m in start] == [True] * 3
    original = LoadLidarPoints.transform

    def broken(self, results):
        if results['frame_index'] == 3:
            raise BadFrameError('x.pcd.bin', 'is truncated')
        return original(self, results)

    monkeypatch.setattr(LoadLidarPoints, 'transform', broken)
    clip = metas(clips('val', align='loader', seq_len=3, on_bad_frame='drop')[4])
    assert [m['frame_valid'] for m in clip] == [True, False, True] and clip[1]['frame_index'] == 3
    poses = [FrameMeta.from_metainfo(m).global_from_bev for m in clip]
    assert np.abs(np.stack(poses) - poses[0]).max() < 1e-6
    assert metas(clips(seq_len=2)[0])[0]['clip_aligned'] is False


def test_truth_of_test_clips_moves_too(clips):
    a, b = clips('val', align='loader', seq_len=2)[3], clips('val', seq_len=2)[3]
    last_from_own = metas(a)[0]['bev_aug']
    found, raw = (clip[0]['data_samples'].eval_ann_info['gt_bboxes_3d'] for clip in (a, b))
    expected = raw.gravity_center.double().numpy() @ last_from_own[:3, :3].T + last_from_own[:3, 3]
    np.testing.assert_allclose(found.gravity_center, expected, atol=1e-4)
    assert np.abs(found.gravity_center - raw.gravity_center).max() > 0.5
