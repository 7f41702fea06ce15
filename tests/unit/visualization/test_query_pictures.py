"""Unit and end to end: pictures of queries show what layers do, at the pixels and cells where they do it."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from projects.demos.query_pictures import choose_query, draw_query_pictures
from projects.encodings.multihead import MultiheadAttention
from projects.geometry.homography import crop_homography, flip_homography, resize_homography
from projects.memfusion.hooks.visualization_hook import BEVVisualizationHook
from projects.memfusion.queries.decoder import DecoderLayer, Tokens
from projects.memfusion.runtime import UserError, init_registry, prepare_config
from projects.memfusion.structures import Calibration, TokenPlaces
from projects.memfusion.visualization import QueryRecord, draw_queries, draw_query_attention, draw_query_cameras
from projects.memfusion.visualization.image_files import read_rgb
from projects.memfusion.visualization.queries import QUERY_COLORS
from projects.memfusion.visualization.query_attention import heat_of
from projects.memfusion.visualization.query_record import LayerLooks

RANGE_M = (-10.0, -10.0, -5.0, 10.0, 10.0, 3.0)


# -- what layers say of themselves ------------------------------------------------------------------------------------
def test_weights_are_those_of_torchs_own_attention() -> None:
    ours, theirs = MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, key, keep = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]]).bool()
    _, wanted = theirs(query, key, key, key_padding_mask=~keep, average_attn_weights=False)
    torch.testing.assert_close(ours.weights(query, key, keep), wanted, atol=1e-6, rtol=0)
    _, wanted = theirs(query, key, key, average_attn_weights=False)
    torch.testing.assert_close(ours.weights(query, key), wanted, atol=1e-6, rtol=0)
    assert torch.equal(ours.weights(query, key, keep & torch.tensor([[True], [False]]))[1], torch.zeros(2, 3, 5))


def test_a_decoder_layer_tells_what_its_cross_attention_weighs() -> None:
    """One head whose values and output are the identity: weights times tokens are what the queries read."""
    layer = DecoderLayer(6, 1, 8, dropout=0.0).eval()
    with torch.no_grad():
        layer.cross_attn.in_proj_weight[12:] = torch.eye(6)
        layer.cross_attn.out_proj.weight.copy_(torch.eye(6))
    read = []
    layer.cross_attn.register_forward_hook(lambda module, given, out: read.append(out))
    queries, positions, memory = (torch.randn(2, count, 6) for count in (4, 4, 3))
    values = torch.randn(2, 2 * 2 * 3 + 2 * 2 * 3 + 4 * 2, 6)
    places = (TokenPlaces((2, 2, 3)), TokenPlaces((2, 2, 3), 1), TokenPlaces((4, 2)))
    tokens = Tokens(values + torch.randn_like(values), values, places=places)
    given = (queries, positions, tokens, None, Tokens(memory, memory))
    layer(*given)
    looks = layer.query_looks(torch.tensor([2, 0]), *given)
    flat = torch.cat([looks.images.flatten(2), torch.zeros(2, 2, 12), looks.bev.flatten(2)], dim=2)
    lacks = read[0][:, [2, 0]] - flat @ values  # what earlier frames gave
    earlier = looks.earlier[..., None]
    torch.testing.assert_close(flat.sum(-1, keepdim=True) + earlier, torch.ones(2, 2, 1), atol=1e-5, rtol=0)
    low, high = values[:, 12:24].amin(1, keepdim=True), values[:, 12:24].amax(1, keepdim=True)
    assert (lacks <= earlier * high + 1e-5).all() and (lacks >= earlier * low - 1e-5).all() and (earlier > 0.1).all()
    with pytest.raises(ValueError, match='attend to 32 tokens'):
        layer.query_looks(torch.tensor([0]), queries, positions, replace(tokens, places=places[:2]))


# -- pictures by hand: 30 px per metre from above, images of 64 x 96 px, drawn as large ---------------------------------
def rig(turned: bool = False) -> Calibration:
    """Two cameras at the LiDAR that look along y and along x; `turned`: resized, cropped and mirrored for the network."""
    ahead = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    aside = ahead @ np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    info = {name: dict(cam2img=[[48.0, 0, 47.5], [0, 48, 31.5], [0, 0, 1]], lidar2cam=matrix, height=64, width=96)
            for name, matrix in dict(CAM_FRONT=ahead, CAM_FRONT_RIGHT=aside).items()}
    made = Calibration.from_info(info)
    if turned:
        for n in range(2):
            step = flip_homography(120) @ crop_homography(24, 8) @ resize_homography((64, 96), (96, 144))
            made = made.with_img_aug(n, step, (80, 120))
    return replace(made, padded_hw=(80, 120) if turned else (64, 96))


def record(looks: LayerLooks, turned: bool = False) -> QueryRecord:
    """Three queries; followed are the one at (0, 8) and then the one at (6, -4), which came from (6, 0)."""
    boxes = np.zeros((2, 3, 9), dtype=np.float32)
    boxes[..., 3:6] = 1.0
    boxes[:, :, :3] = [[[6, 0, -0.5], [-5, -5, -0.5], [0, 8, -0.5]], [[6, -4, -0.5], [-5, -5, -0.5], [0, 8, -0.5]]]
    return QueryRecord(boxes, np.array([0.5, 0.1, 0.9]), np.array([0, 1, 1]), np.array([2, 0]), (looks,), rig(turned))


def near(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image.astype(int) - color).sum(axis=2) < 60


def test_from_above_every_query_has_its_place_and_colour() -> None:
    points = np.array([[[4.0, 8, 0], [5, 8, 0]], [[7.0, -8, 0], [8, -8, 0]]])
    image = draw_queries(record(LayerLooks(points, None, None, None, None)), RANGE_M, size_px=600)
    image[:140, :300] = 0  # the legend
    first, second = (near(image, color) for color in QUERY_COLORS[:2])
    of_second = [((x, y), second) for x, y in ((7, -8), (8, -8), (6, -2))]  # points, and the way
    for place, drawn in [((4, 8), first), ((5, 8), first), *of_second]:
        row, column = round(30 * (10 - place[1])), round(30 * (place[0] + 10))
        assert drawn[row - 2:row + 2, column - 2:column + 2].any(), place
    assert image[449:451, 149:151].max() > 60 and not (first | second)[430:470, 130:170].any(), 'a query that is not followed'


@pytest.mark.parametrize('turned', [False, True])
def test_attention_lies_where_its_cell_lies_in_the_cameras_own_image(turned: bool) -> None:
    """Cell (5, 7) of 8 x 12: pixel (43.5, 59.5) of the image as it is. Of the other, 10 px a cell, pixel (54.5, 74.5), whose
    column was 44.5 before it was mirrored, and (62.5, 68.5) before it was cropped, (41.5, 45.5) before it was resized."""
    v, u = (41.5, 45.5) if turned else (43.5, 59.5)
    shares, bev = np.zeros((1, 2, 8, 12), dtype=np.float32), np.zeros((1, 10, 10), dtype=np.float32)
    shares[0, 0, 5, 7] = bev[0, 2, 7] = 0.5  # x 4..6, y -6..-4
    seen = record(LayerLooks(None, None, shares, bev, np.array([0.0])), turned)
    seen = replace(seen, chosen=seen.chosen[:1], boxes=seen.boxes - 1000)
    images = {name: np.full((64, 96, 3), 90, dtype=np.uint8) for name in seen.raw_rig.cam_names}
    image = draw_query_attention(seen, RANGE_M, images, tile_width_px=480)[30:]
    tiles = image[:320, :3 * 480].reshape(320, 3, 480, 3)
    for drawn in (tiles[:, 1], draw_query_cameras(seen, images, tile_width_px=480)[:320, 480:960]):
        brightness = drawn[100:].astype(int).sum(axis=2)  # below names and legend
        row, column = np.argwhere(brightness > 0.95 * brightness.max()).mean(axis=0)
        np.testing.assert_allclose([row + 100, column], [5 * v + 2, 5 * u + 2], atol=3)
    assert tiles[160, 2, 240].max() < 90  # the other camera is dimmed
    above = image[:, 3 * 480 + 6:]
    scale = above.shape[0] / 20
    hot = np.argwhere(near(above, tuple(above[round(15 * scale), round(15 * scale)].tolist())))
    np.testing.assert_allclose(hot.mean(axis=0), [15 * scale, 15 * scale], atol=0.2 * scale)


def test_sampled_pixels_are_drawn_on_the_camera_that_reads_them() -> None:
    pixels = np.full((2, 2, 2, 2), np.nan)
    pixels[0, 0, 1], pixels[1, 1, 0] = (80.0, 50.0), (20.0, 40.0)
    seen = record(LayerLooks(np.zeros((2, 2, 3)), pixels, None, None, None))
    images = {name: np.zeros((128, 192, 3), dtype=np.uint8) for name in seen.raw_rig.cam_names}
    mosaic = draw_query_cameras(replace(seen, boxes=seen.boxes - 1000), images, tile_width_px=192)
    tiles = mosaic[:128].reshape(128, 3, 192, 3)  # front left, front, front right
    for tile, color, (u, v) in ((1, QUERY_COLORS[0], (80, 50)), (2, QUERY_COLORS[1], (20, 40))):
        found = np.argwhere(near(tiles[:, tile], color))
        np.testing.assert_allclose(found.mean(axis=0), [v, u], atol=0.6)
    assert not near(tiles[:, 1], QUERY_COLORS[1]).any() and not near(tiles[:, 2], QUERY_COLORS[0]).any()
    with pytest.raises(ValueError, match='no cameras'):
        draw_query_cameras(replace(seen, rig=None), images)


def test_a_layer_that_is_asked_for_is_drawn() -> None:
    first, last = (LayerLooks(np.full((2, 1, 3), at), None, None, None, None) for at in (4.0, -8.0))
    seen = replace(record(first), layers=(first, last))
    for layer, at in ((0, 4.0), (1, -8.0), (-1, -8.0)):
        drawn = near(draw_queries(seen, RANGE_M, size_px=600, layer=layer), QUERY_COLORS[0])
        for place in (4.0, -8.0):
            row, column = round(30 * (10 - place)), round(30 * (place + 10))
            assert drawn[row - 2:row + 2, column - 2:column + 2].any() == (place == at), (layer, place)
    for draw in (draw_queries, draw_query_attention):
        with pytest.raises(ValueError, match='layer 2: the head that was recorded has 2 layers'):
            draw(seen, RANGE_M, layer=2)
    with pytest.raises(ValueError, match='layer -3: the head that was recorded has 2 layers'):
        draw_query_cameras(seen, {}, layer=-3)


def test_even_attention_is_dark_and_a_peak_is_bright() -> None:
    even = np.full((2, 4, 4), 1 / 32) * np.linspace(0.9, 1.1, 32).reshape(2, 4, 4)
    assert heat_of(even).max() < 0.05
    even[1, 2, 3] = 0.5
    assert heat_of(even).max() == 1 and (heat_of(even) > 0).sum() == 1


def test_the_query_that_is_asked_for_or_the_best_one_near_a_place() -> None:
    seen = record(LayerLooks(None, None, None, None, None))
    assert choose_query(seen, None, None) == 2 and choose_query(seen, 1, None) == 1 and choose_query(seen, None, (5, -4)) == 0
    with pytest.raises(UserError, match='--at 0 0: no query'):
        choose_query(seen, None, (0, 0))


# -- end to end -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def querying(repo: Path, nano_infos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config with queries that attend to two cameras of the nano world, and a checkpoint of random weights."""
    folder = tmp_path_factory.mktemp('query_pictures')
    config, checkpoint = folder / 'nano.py', folder / 'random.pth'
    config.write_text(f"""
_base_ = ['{repo}/configs/query/cmt-camera_r18_fpn_tiny-synthetic.py']
model = dict(img_backbone=dict(base_channels=8), img_neck=dict(in_channels=[16, 32]))
test_dataloader = dict(dataset=dict(data_root='{nano_infos_root}/'))
""")
    from mmdet3d.registry import MODELS
    init_registry()
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(prepare_config(config).model).state_dict()), checkpoint)
    return config, checkpoint


def test_command_line(querying: tuple[Path, Path], repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location('visualize_queries', repo / 'tools' / 'visualize_queries.py')
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main([*map(str, querying), '--out', str(tmp_path), '--frame', '1', '--query', '7', '--layer', '0'])
    assert {path.name for path in tmp_path.iterdir()} == {'queries.png', 'query_cameras.png', 'query_attention.png'}
    assert read_rgb(tmp_path / 'queries.png').shape == (900, 900, 3) and '3 pictures' in capsys.readouterr().out


def test_a_frame_or_layer_that_is_not_there_is_an_error(querying: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match='has frames 0 to'):
        draw_query_pictures(prepare_config(querying[0]), str(querying[1]), tmp_path, frame=99)
    with pytest.raises(UserError, match='--layer 9: the head that was recorded has 2 layers, from 0'):
        draw_query_pictures(prepare_config(querying[0]), str(querying[1]), tmp_path, layer=9)
    assert not list(tmp_path.iterdir())


def test_a_detector_without_queries_is_named(repo: Path, tmp_path: Path) -> None:
    cfg = prepare_config(repo / 'configs/lidar/pillar04_second_secfpn_tiny-synthetic.py')
    with pytest.raises(UserError, match='InitCenterHead, which has no queries'):
        draw_query_pictures(cfg, 'none.pth', tmp_path)


def test_show_dir_draws_the_queries_of_every_sample(querying: tuple[Path, Path], tmp_path: Path) -> None:
    from mmdet3d.registry import DATASETS, MODELS
    from mmengine.dataset import pseudo_collate
    cfg: Config = prepare_config(querying[0])
    init_registry()
    model, dataset = MODELS.build(cfg.model).eval(), DATASETS.build(cfg.test_dataloader.dataset)
    hook = BEVVisualizationHook(draw=True, test_out_dir=str(tmp_path))
    run = SimpleNamespace(cfg=cfg, model=model, logger=logging.getLogger('test'), work_dir=str(tmp_path),
                          test_dataloader=SimpleNamespace(dataset=dataset))
    hook.before_test_epoch(run)
    data = pseudo_collate([dataset[0]])
    with torch.no_grad():
        outputs = model(**model.data_preprocessor(data), mode='predict')
    hook.after_test_iter(run, 0, data, outputs)
    hook.after_test_epoch(run)
    assert {path.stem.split('_', 2)[2] for path in tmp_path.iterdir()} == {'bev', 'cameras', 'queries', 'query_cameras'}
    assert 'forward' not in vars(model.pts_bbox_head)
