"""Patches, sizes and position ids by hand; the published numbers are replayed by tests/unit/test_replay.py."""

import pytest
import torch

from projects.geometry.rigid import skew
from projects.spatial_mllm.model.connectors import AddConnector, pack_tokens
from projects.spatial_mllm.model.poses import FramePoses, half_turn, merge_poses, unit_intrinsics
from projects.spatial_mllm.processing.patches import PatchSettings, patch_rows, resized, smart_resize
from projects.spatial_mllm.processing.position_ids import PositionRule, VisionBlocks, position_ids

PLAIN = PatchSettings(patch=1, temporal=2, merge=2, mean=(0, 0, 0), std=(1, 1, 1), min_pixels=1, max_pixels=64)
IMAGE, VIDEO, START, END = 1, 2, 3, 4


def test_rows_go_by_time_block_and_place_in_the_block():
    frames = torch.arange(3 * 2 * 4).reshape(3, 2, 4, 1).expand(-1, -1, -1, 3).to(torch.uint8)
    rows, grid = patch_rows(frames, PLAIN)
    assert grid.tolist() == [2, 2, 4] and rows.shape == (16, 6)
    seen = (rows * 255).round().int().tolist()
    assert [row[0] for row in seen] == [0, 1, 4, 5, 2, 3, 6, 7, 16, 17, 20, 21, 18, 19, 22, 23]
    assert seen[1] == [1, 9, 1, 9, 1, 9] and seen[8] == [16] * 6  # channel, then time; the odd last frame is repeated


def test_a_resized_frame_divides_into_tokens():
    frames = torch.full((2, 30, 50, 3), 200, dtype=torch.uint8)
    shrunk = resized(frames, PatchSettings(min_pixels=28 * 28, max_pixels=28 * 56))
    assert shrunk.shape == (2, 28, 56, 3) and (shrunk == 200).all()
    assert smart_resize(100, 20000, 28, 1, 10**9) == (112, 19992)


@pytest.mark.parametrize('frames, message', [
    (torch.zeros(0, 4, 4, 3, dtype=torch.uint8), '1 or more'), (torch.zeros(1, 4, 4, 3), 'uint8'),
    (torch.zeros(1, 3, 4, 3, dtype=torch.uint8), '3 x 4 pixels does not divide into tokens of 2'),
])
def test_wrong_frames_are_refused(frames, message):
    with pytest.raises(ValueError, match=message):
        patch_rows(frames, PLAIN)


def test_wrong_settings_and_shapes_are_refused():
    with pytest.raises(ValueError, match='ratio at most 200'):
        smart_resize(1, 300, 28, 1, 10)
    for wrong in (dict(patch=0), dict(std=(1, 1, 0)), dict(mean=(0,)), dict(min_pixels=9, max_pixels=8)):
        with pytest.raises(ValueError):
            PatchSettings(**wrong)
    with pytest.raises(ValueError, match="known rules are float, int"):
        PositionRule(IMAGE, VIDEO, time='seconds')


def test_position_ids_by_hand():
    """Text, a video of 2 steps of 1 x 2 tokens, text; an image in another row, padded on the left."""
    tokens = torch.tensor([[9, START, VIDEO, VIDEO, VIDEO, VIDEO, END, 9], [0, 0, 0, 9, START, IMAGE, END, 9]])
    mask = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
    blocks = VisionBlocks([(1, 2, 2)], [(2, 2, 4)], [1.5])
    places, deltas = position_ids(tokens, PositionRule(IMAGE, VIDEO), blocks, mask)
    assert places[:, 0].tolist() == [[0, 1, 2, 2, 5, 5, 6, 7], [0, 1, 2, 2, 2, 2, 6, 7], [0, 1, 2, 3, 2, 3, 6, 7]]
    assert places[:, 1].tolist() == [[1, 1, 1, 0, 1, 2, 3, 4]] * 3 and deltas.tolist() == [[0], [-3]]


def test_videos_by_frames_stand_at_time_0_each():
    tokens = torch.tensor([[9, VIDEO, VIDEO, 9, VIDEO, VIDEO, 9]])
    places, _ = position_ids(tokens, PositionRule(IMAGE, VIDEO, time='frames'), VisionBlocks(videos=[(2, 2, 4)]))
    assert places[:, 0].tolist() == [[0, 1, 1, 3, 4, 4, 6], [0, 1, 1, 3, 4, 4, 6], [0, 1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize('tokens, videos, message', [
    ([VIDEO, VIDEO, 9], [], 'row 0 .*more than the 0 video grids'),
    ([VIDEO, 9, 9], [(1, 2, 4)], 'needs 2 tokens in a row from token 0'),
    ([VIDEO], [(1, 2, 4)], 'needs 2 tokens'), ([9], [(1, 2, 4)], '1 video grids, but tokens for 0'),
])
def test_tokens_and_grids_must_fit(tokens, videos, message):
    with pytest.raises(ValueError, match=message):
        position_ids(torch.tensor([tokens]), PositionRule(IMAGE, VIDEO), VisionBlocks(videos=videos))
    with pytest.raises(ValueError, match='2 numbers of seconds per grid for 1'):
        VisionBlocks(videos=[(1, 2, 2)], seconds=[1, 2])


def test_a_new_connector_changes_nothing_and_says_what_does_not_fit():
    video = torch.randn(4, 8, 3)
    packed = pack_tokens([video], [(1, 2, 4), (1, 2, 4)])
    vision = torch.randn(4, 5)
    assert packed.shape == (4, 24) and torch.equal(AddConnector(24, 5)(vision, packed), vision)
    assert torch.equal(packed[0].reshape(4, 3, 2), video[:2, [0, 1, 4, 5]].permute(1, 2, 0))
    for videos, grids, message in [([video[:3]], [(2, 2, 4)], '3 frames .* do not divide'),
                                   ([video], [(1, 2, 4)], '4 frames of 8 patches, its grid 2 of 2 x 4'),
                                   ([video], [(2, 2, 4), (1, 4, 4)], '2 grids, but geometry for 1'), ([video], [], 'grid 0')]:
        with pytest.raises(ValueError, match=message):
            pack_tokens(videos, grids)


def test_poses_of_two_frames_merge():
    """Half of a turn of 90 degrees about y, and of one of 180; the centre in the middle; the last frame repeated."""
    pose = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    pose[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    pose[1, :3, 3] = -pose[1, :3, :3] @ torch.tensor([2.0, 0, 4]).double()
    intrinsics = torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1).expand(3, 3, 3)
    poses = FramePoses(pose, intrinsics)
    merged = merge_poses(poses, 'midpoint')
    root = 0.5 ** 0.5
    turned = torch.tensor([[root, 0, root], [0, 1, 0], [-root, 0, root]], dtype=torch.float64)
    torch.testing.assert_close(merged.cam_from_world[0, :3, :3], turned)
    torch.testing.assert_close(merged.cam_from_world[0, :3, 3], -turned @ torch.tensor([1.0, 0, 2]).double())
    assert torch.equal(merged.cam_from_world[1], pose[2]) and merged.img_from_cam[:, 0, 0].tolist() == [1.5, 4]
    assert torch.equal(merge_poses(poses, 'first').cam_from_world, pose[::2])
    assert torch.equal(merge_poses(poses, 'midpoint', temporal=1).cam_from_world, pose)
    generator = torch.Generator().manual_seed(0)
    for angle in (1e-9, 1e-3, 1.0, 3.0, torch.pi - 1e-9, torch.pi):
        axis = torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64, generator=generator), dim=0)
        turn = torch.matrix_exp(angle * skew(axis))
        torch.testing.assert_close(half_turn(turn) @ half_turn(turn), turn, rtol=0, atol=1e-7)
    for merge, temporal in (('mean', 2), ('first', 3)):
        with pytest.raises(ValueError, match='pose_merge=|poses of 3 frames'):
            merge_poses(poses, merge, temporal)


def test_relative_poses_and_unit_intrinsics():
    pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    pose[:, 0, 3] = torch.tensor([5.0, 7.0])
    assert FramePoses(pose).relative().cam_from_world[:, 0, 3].tolist() == [0, 2]
    intrinsics = torch.tensor([[100.0, 0, 50], [0, 80, 20], [0, 0, 1]])
    assert unit_intrinsics(intrinsics, (40, 100)).tolist() == [[1, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]
