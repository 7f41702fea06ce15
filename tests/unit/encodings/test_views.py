"""Views of rigs, queries, cells and text; errors that name the camera or the key."""

import math
from dataclasses import replace

import pytest
import torch
from pose_scenes import GRID, HEADS, IMAGE, D, cameras, heads, poses, views

from projects.encodings import Views, attention, build_encoding
from projects.encodings.view_sources import bev_views, camera_views, query_views, unposed_views
from projects.encodings.views import join_views
from projects.geometry.homography import flip_homography
from projects.memfusion.structures import Calibration


def rig(height=32, width=64, pad_to=None, homography=None):
    """Two cameras, one looks along +x and one along -x, 30 px focal length, pixels 0 at a centre."""
    k = torch.tensor([[30.0, 0, width / 2 - 0.5], [0, 30.0, height / 2 - 0.5], [0, 0, 1]])
    ahead = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0.5], [0, 0, 0, 1]])
    behind = torch.tensor([[0.0, 1, 0, 0], [0, 0, -1, 1.5], [-1, 0, 0, 0], [0, 0, 0, 1]])
    calibration = Calibration.from_matrices(k.expand(1, 2, 3, 3), torch.stack([ahead, behind])[None],
                                            torch.tensor([[[height, width]] * 2]))
    if homography is not None:
        calibration = replace(calibration, img_aug=homography.expand(1, 2, 4, 4))
    return calibration if pad_to is None else replace(calibration, padded_hw=pad_to)


def matrices(seen, **settings):
    """(B, N, 4, 4) P, the world left as it is."""
    cfg = dict(type='PRoPE', layout='P1/1', reference='world', trans_scale=1.0, **settings)
    return build_encoding(cfg).bind(seen, None, HEADS, D).side_q.pose


@pytest.mark.parametrize('pad_to', [None, (48, 64)])
def test_a_rig_shows_points_where_its_calibration_does(pad_to):
    calibration = rig(pad_to=pad_to)
    points = torch.tensor([[[9.0, 2.0, 1.0], [7.0, -1.0, 2.5]]])
    uv, depth, _ = calibration.project(points)
    seen = camera_views(calibration.views(), (1, 8, 2, 4))
    assert seen.grid == (2, 4) and seen.time.tolist() == [[0, 0]]
    shown = torch.einsum('nij,pj->npi', matrices(seen)[0], torch.nn.functional.pad(points[0].double(), (0, 1), value=1.0))
    height, width = calibration.views().padded_hw
    expected = (uv[0, 0].double() + 0.5) / torch.tensor([width, height]) - 0.5
    assert torch.allclose(shown[0, :, :2] / shown[0, :, 2:3], expected, atol=1e-6)
    assert torch.allclose(shown[0, :, 2], depth[0, 0].double(), atol=1e-6)


def test_an_image_that_is_flipped_has_other_matrices_and_they_are_right():
    plain, flipped = (matrices(camera_views(rig(homography=one).views(), (2, 4)))[0, 0] for one in (None, flip_homography(64)))
    point = torch.tensor([9.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    (u, v, depth, _), (other_u, other_v, other_depth, _) = plain @ point, flipped @ point
    assert torch.allclose(torch.stack([-u, v, depth]), torch.stack([other_u, other_v, other_depth]), atol=1e-9)


def test_queries_stand_at_their_references_and_look_along_their_yaw():
    references, yaw = torch.tensor([[[3.0, 4.0, 1.0], [0.0, 0.0, 0.0]]]), torch.tensor([[math.pi / 2, 0.3]])
    matrix = matrices(query_views(references, yaw))
    ahead = torch.tensor([3.0, 6.0, 1.0, 1.0], dtype=torch.float64)  # 2 m along +y, which is ahead
    assert torch.allclose(matrix[0, 0] @ ahead, torch.tensor([2.0, 0, 0, 1], dtype=torch.float64), atol=1e-6)
    assert torch.allclose(matrix[0, 1, :2, :2] @ torch.tensor([math.cos(0.3), math.sin(0.3)]).double(),
                          torch.tensor([1.0, 0]).double(), atol=1e-6)
    scaled = build_encoding(dict(type='CaPE6', reference='world')).bind(query_views(references), None, HEADS, D).side_q.pose
    assert torch.allclose(scaled[0, 0, :3, 3], -references[0, 0].double() / 25)


@pytest.mark.parametrize('scale', [1.0, 0.1])
def test_cells_are_shifted_cameras_that_map_the_range_to_one(scale):
    seen = bev_views((-8.0, -4.0, -3.0, 8.0, 4.0, 5.0), (2, 4), batch=3)
    assert seen.cam_from_world.shape == (3, 8, 4, 4) and seen.places()[0, :, 0, :2].tolist() == [
        [y, x] for y in range(2) for x in range(4)]
    cfg = dict(type='PRoPE', layout='P1/1', reference='world', trans_scale=scale)
    matrix = build_encoding(cfg).bind(seen, None, HEADS, D).side_q.pose
    point = torch.tensor([6.0 * scale, 2.0 * scale, 1.0 * scale, 1.0], dtype=torch.float64)  # lengths of the world are scaled
    assert torch.allclose(matrix[0, 7] @ point, torch.tensor([0, 0, 0, 1.0]).double(), atol=1e-12)  # the last cell's centre
    corner = torch.tensor([8.0 * scale, 4.0 * scale, 5.0 * scale, 1.0], dtype=torch.float64)
    assert torch.allclose(matrix[0, 7] @ corner, torch.tensor([1 / 8, 1 / 4, 1 / 2, 1]).double(), atol=1e-12)


def test_modalities_read_each_other():
    """Queries over camera tokens, and over cells: the world frame is anyone's there too."""
    encoding = build_encoding(dict(type='CaPE6', values=True, intrinsics=True))
    (q, k, v), frame = heads(1, 16), poses(1, 1, 3)
    queries = query_views(torch.randn(1, 16, 3, generator=torch.Generator().manual_seed(0)) * 5)
    for keys in (camera_views(rig().views(), (2, 4)), bev_views((-8.0, -4.0, -3.0, 8.0, 4.0, 5.0), (4, 4))):
        plain = attention(q, k, v, encoding, queries, keys)
        moved = [replace(seen, cam_from_world=seen.cam_from_world @ frame) for seen in (queries, keys)]
        assert torch.allclose(attention(q, k, v, encoding, *moved), plain, atol=1e-11)


def test_joined_views_keep_places_times_and_cameras():
    seen, text = views(), unposed_views(2, 2, time=torch.tensor([[5, 6]]))
    both = join_views(text, seen)
    assert both.per == 'token' and both.count == 20 and both.posed[:, :2].sum() == 0 and both.posed[:, 2:].all()
    assert both.time[0, :4].tolist() == [5, 6, 0, 0]
    assert torch.equal(both.grid[:, 2:], seen.as_tokens().places()[:, :, 0].expand(2, -1, -1))
    assert torch.allclose(both.lift()[:, 2:], seen.as_tokens().lift(), atol=1e-12)
    with pytest.raises(ValueError, match='part 1 has no time'):
        join_views(text, unposed_views(2, 2))
    with pytest.raises(ValueError, match='affine'):
        join_views(seen, bev_views((-1.0, -1, -1, 1, 1, 1), (1, 1), 2, time=torch.zeros(1, 1)))
    with pytest.raises(ValueError, match='pass tokens='):
        join_views(replace(seen, grid=None))


SINGULAR = poses(2, 3)
SINGULAR[1, 2, 0, :3] = SINGULAR[1, 2, 1, :3]
TRANSPOSED = poses(2, 3).transpose(-1, -2)


@pytest.mark.parametrize('changed, message', [
    (dict(cam_from_world=SINGULAR), r'cam_from_world of camera 2 \(sample 1\) is singular'),
    (dict(cam_from_world=poses(2, 3) * torch.nan), r'camera 0 \(sample 0\) is singular or not finite'),
    (dict(cam_from_world=TRANSPOSED), r'cam_from_world of camera 0 .*is it transposed'),
    (dict(cam_from_world=poses(2, 3)[0]), r'must be \(B, N, 4, 4\)'),
    (dict(image_hw=(20, 32)), r'principal point of camera [012] .*its K is of another image size'),
    (dict(image_hw=None), 'image_hw is missing'),
    (dict(image_hw=(0, 4)), 'image_hw must be height and width'),
    (dict(image_hw=torch.tensor([20, 32])), 'image_hw must be height and width'),
    (dict(img_from_cam=torch.zeros(2, 3, 3, 3)), r'img_from_cam of camera 0 \(sample 0\) is singular'),
    (dict(img_from_cam=cameras(2, 2)), r'one K for each pose, got \(2, 2, 3, 3\)'),
    (dict(grid=(0, 3)), 'grid must be rows and columns'),
    (dict(grid=torch.zeros(2, 3, 2)), "with per='camera'"),
    (dict(grid=(2, 2), per='token'), 'do not divide 3 tokens'),
    (dict(time=torch.zeros(2, 4)), 'Views.time must be'),
    (dict(per='frame'), 'camera, token'),
])
def test_views_that_cannot_be(changed, message):
    with pytest.raises(ValueError, match=message):
        views(**changed)


@pytest.mark.parametrize('cfg, message', [
    (dict(type='PROPE'), 'encoding.type must be one of none, PRoPE'),
    (dict(type='PRoPE', bse=3), r"type PRoPE has no settings \['bse'\]"),
    (dict(type='none', layout='P1/1'), r"no settings \['layout'\]"),
    (dict(type='PRoPE', trans_norm='mean'), 'trans_norm must be one of fixed, median, max, learned'),
    (dict(type='PRoPE', trans_scale=0.0), 'trans_scale must be positive'),
    (dict(type='PRoPE', time_mode='frames'), 'time_mode must be one of'),
    (dict(type='PRoPE', convention='eschernet'), 'transforms no values'),
    (dict(type='CaPE6', convention='nerf'), 'convention must be one of gta, eschernet'),
    (dict(type='PRoPE', published_quirks=['skew']), 'published_quirks'),
    (dict(type='HW+P', layout_schedule=[]), 'layout_schedule'),
    (dict(type='PRoPE', rotary=dict(mix='random')), 'rotary.mix must be one of'),
    (dict(type='PRoPE', rotary=dict(base=-1.0)), 'rotary.base'),
    (dict(type='PRoPE', rotary=dict(bse=3)), r"encoding.rotary has no settings \['bse'\]"),
    (dict(type='FrustumPE'), 'FrustumPE needs dim'),
    (dict(type='PRoPE', layout='P1/2 Z1/2'), "'Z1/2' is no part"),
    (dict(type='PRoPE', layout=None), "layout must be text such as 'P1/2 H1/4 W1/4'"),
    (dict(type='PRoPE', layout_schedule=[[16, 8, 8]]), r'layout must be text .* got \[16, 8, 8\]'),
    (dict(type='PRoPE', layout=[dict(heads=3, layout='P1/1'), dict(heads=-1, layout='P1/1')]), 'at least one head, got -1'),
])
def test_configs_that_cannot_be(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_encoding(cfg)


@pytest.mark.parametrize('cfg, head_dim, message', [
    (dict(type='PRoPE'), 36, "part 'P1/2', heads of 36 channels: 18 channels do not divide by 4"),
    (dict(type='PRoPE'), 42, '21/2 channels cannot be|do not divide by 4'),
    (dict(type='CaPE6'), 30, 'do not divide by 4'),
    (dict(type='HW+P', layout='P16 H7 W9'), 32, '7 channels are odd'),
    (dict(type='HW+P', layout='P16 H8'), 32, 'takes 24 channels, but heads have 32'),
    (dict(type='HW+P', layout='P16 Z16'), 32, "'Z16' is no part"),
    (dict(type='HW+P', layout='P16 HH16'), 32, "'HH16' is no part"),
    (dict(type='HW+P', layout=[dict(heads=3, layout='P1/1')]), 32, r'head groups of \[3\] heads are not the 2 heads'),
    (dict(type='HW+P', layout=[dict(head=2, layout='P1/1')]), 32, 'mappings of heads and layout'),
    (dict(type='RoPE-THW'), 36, 'give rotary.sections'),
    (dict(type='RoPE-THW', rotary=dict(sections=(4, 4, 4))), 32, 'one number for each of T, H, W, 16 in all'),
    (dict(type='RoPE-THW', rotary=dict(sections=(2, 7, 7), mix='interleaved')), 32, 'at most a third'),
    (dict(type='RoPE-HW', rotary=dict(mix='each')), 34, 'do not divide among 2 axes'),
])
def test_layouts_that_do_not_fit(cfg, head_dim, message):
    with pytest.raises(ValueError, match=message):
        build_encoding(cfg).check(HEADS, head_dim)


def test_lists_of_a_config_are_sizes_too():
    seen = views()
    assert views(image_hw=list(seen.image_hw), grid=list(seen.grid)).as_tokens().count == seen.as_tokens().count


@pytest.mark.parametrize('cfg', [dict(type='PRoPE', trans_norm='median'), dict(type='HW+P'), dict(type='PoseALiBi'),
                                 dict(type='PoseALiBi', form='factored'), dict(type='FrustumPE', dim=64)])
def test_nobody_asks_and_nothing_is_there(cfg):
    encoding, (q, k, v), seen = build_encoding(cfg).double(), heads(), views()
    for nobody in (views(count=0), views(count=0).as_tokens()):
        assert attention(q[:, :, :0], k, v, encoding, nobody, seen).shape == (2, HEADS, 0, D)
        assert attention(q, k[:, :, :0], v[:, :, :0], encoding, seen, nobody).abs().sum() == 0


def test_tokens_that_are_not_the_views():
    encoding, (q, k, v), seen = build_encoding(dict(type='PRoPE')), heads(), views()
    with pytest.raises(ValueError, match=r'keys are 18 tokens, but their views are of 4 cameras with a grid of \(2, 3\)'):
        attention(q, k, v, encoding, seen, views(count=4))
    with pytest.raises(ValueError, match='queries are 18 tokens, but their views are of 9 tokens'):
        attention(q, k, v, encoding, Views(poses(2, 9), per='token', grid=torch.zeros(1, 9, 2)), seen)
    with pytest.raises(ValueError, match='do not divide among the 4 cameras'):
        attention(q, k, v, build_encoding(dict(type='CaPE6')), Views(poses(2, 4)), seen)
    with pytest.raises(ValueError, match='queries are of 2 samples, but their views of 3'):
        attention(q, k, v, encoding, views(3), views(3))
    with pytest.raises(ValueError, match='views of the queries have no grid'):
        attention(q, k, v, encoding, views(grid=None), seen)
    with pytest.raises(ValueError, match='give Views.grid as'):
        attention(q, k, v, build_encoding(dict(type='GTA')), Views(poses(2, 18), per='token', grid=torch.zeros(1, 18, 2)), seen)
    with pytest.raises(ValueError, match='mask must be bool'):
        attention(q, k, v, encoding, seen, seen, torch.zeros(18, 18))
    assert GRID == (2, 3) and IMAGE == (40, 64)
    with pytest.raises(ValueError, match=r'attention: q must be .* got \(2, 2, 18, 32\), \(2, 2, 18, 16\)'):
        attention(q, k[..., :16], v, encoding, seen)
    with pytest.raises(ValueError, match='queries lie on meta, but their views on cpu'):
        attention(q.to('meta'), k, v, encoding, seen)
    for cfg in (dict(type='PRoPE'), dict(type='PoseALiBi', form='factored')):
        with pytest.raises(ValueError, match='values have 16 channels, but the encoding was made for 32'):
            attention(q, k, v[..., :16], build_encoding(cfg), seen)
